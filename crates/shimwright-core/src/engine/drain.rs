//! Graceful shutdown, for an engine whose guest serves requests.

use std::io::{self, PipeReader};
use std::time::Duration;

use crate::sys;

/// Lets the engine finish its work after the first `SIGTERM` or `SIGINT`. Returns the read end of a
/// pipe, which gets one byte at that signal.
///
/// Call it once, in [`Engine::run`](crate::Engine::run), as soon as there may be work to finish.
/// Until then, both signals end the process at once.
///
/// After the first signal the engine has `grace`, rounded up to whole seconds, to return from `run`.
/// If it takes longer, or if a second signal arrives, the process ends at once with 128 + the
/// signal's number, whatever its threads are doing.
///
/// # Errors
///
/// The process has no descriptors left.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use std::time::Duration;
///
/// let mut asked = shimwright_core::drain_on_signals(Duration::from_secs(30))?;
/// std::thread::spawn(move || {
///     let _ = std::io::Read::read(&mut asked, &mut [0]);
///     // Tell the server to finish its requests.
/// });
/// # Ok(())
/// # }
/// ```
pub fn drain_on_signals(grace: Duration) -> io::Result<PipeReader> {
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    // An alarm of no seconds would never ring.
    sys::signal::drain_on_signals(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}
