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
/// signal's number, whatever its threads are doing. If the guest's time limit ends first, the
/// process ends with [`Status::TIMED_OUT`](crate::Status::TIMED_OUT).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::exit::Status;
    use rustix::process::{Signal, getpid, kill_process};
    use std::process::{Command, Output};

    /// Says to this executable that it is to drain, with this time limit and this grace period.
    const DRAIN: &str = "SHIMWRIGHT_TEST_DRAIN";

    /// A process that begins to drain, and never ends by itself.
    fn drain(times: &str) {
        let (limit, grace) = times.split_once(' ').unwrap();
        sys::signal::end_on_signals();
        sys::signal::end_after(limit.parse().unwrap());
        let mut asked = drain_on_signals(Duration::from_secs(grace.parse().unwrap())).unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        std::io::Read::read_exact(&mut asked, &mut [0]).unwrap();
        loop {
            std::thread::park();
        }
    }

    fn drained(limit: u32, grace: u32) -> Output {
        let name = std::thread::current().name().unwrap().to_owned();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(DRAIN, format!("{limit} {grace}"))
            .output()
            .unwrap()
    }

    #[test]
    fn what_comes_first_ends_a_process_that_drains() {
        if let Ok(times) = std::env::var(DRAIN) {
            return drain(&times);
        }
        for (limit, grace, status) in [
            (1, 3600, Status::TIMED_OUT),
            (3600, 1, Status::from_signal(15)),
        ] {
            let ended = drained(limit, grace);
            let is_limit = status == Status::TIMED_OUT;
            assert_eq!(ended.status.code(), Some(i32::from(status.code())));
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(said.contains("time limit"), is_limit, "{said}");
        }
    }
}
