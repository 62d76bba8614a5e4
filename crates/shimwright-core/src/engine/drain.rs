//! Ending in good order: for an engine whose guest serves others, and should finish what it has
//! begun.

use std::io::{self, PipeReader};
use std::time::Duration;

use crate::sys;

/// Lets the engine finish what it has begun when the first `SIGTERM` or `SIGINT` comes, and returns
/// the end of a pipe from which a byte can then be read.
///
/// Runner process; called once, from [`Engine::run`](crate::Engine::run), when there may be
/// something to finish. Until then, and in an engine that never calls it, both signals end the
/// process at once.
///
/// From the first signal on, the engine has `grace`, rounded up to whole seconds, to return from
/// `run`. If it does not, or if a second signal comes, the process ends at once with 128 + the
/// signal's number, whatever its threads are doing.
///
/// # Errors
///
/// That there are no descriptors left.
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
///     // Tell those who serve to finish what they have begun.
/// });
/// # Ok(())
/// # }
/// ```
pub fn drain_on_signals(grace: Duration) -> io::Result<PipeReader> {
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    // An alarm of no seconds would never ring.
    sys::signal::drain_on_signals(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}
