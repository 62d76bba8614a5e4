//! The identity of a process: its pid and start time, because the kernel reuses pids.

use std::io;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A process that is still recognised after its pid was given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// In the pid namespace of the shim.
    pub(crate) pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/PID/stat` (`proc_pid_stat(5)`).
    started: u64,
}

impl ProcessId {
    /// Identifies a running process.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let started = parse_start_time(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, started })
    }

    /// A handle on the process, unless it has ended and been reaped.
    pub(crate) fn open(&self) -> Option<std::os::fd::OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        // The handle was opened first, so a pid that is recycled now is no longer ours.
        (Self::of(pid).ok()? == *self).then_some(handle)
    }
}

/// The program's name, in parentheses, may itself hold spaces and parentheses.
pub(super) fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_program_name() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("7 (a)"), None);
    }

    #[test]
    fn a_process_is_recognised_only_with_its_own_start_time() {
        let mut init = ProcessId::of(rustix::process::getpid()).unwrap();
        assert!(init.open().is_some());
        init.started += 1;
        assert!(init.open().is_none());
    }
}
