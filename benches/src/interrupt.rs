//! Ctrl-C and SIGTERM end a scenario with an error, so that destructors clean up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Result;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Lets signals be noticed by [`check`] instead of ending the process.
///
/// # Errors
///
/// If they cannot be caught.
pub fn catch() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Fails if there was a signal. Every scenario asks before each of its steps.
///
/// # Errors
///
/// If there was.
pub fn check() -> Result<()> {
    match INTERRUPTED.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err("interrupted".into()),
        _ => Ok(()),
    }
}
