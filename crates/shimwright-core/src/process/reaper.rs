//! Collecting ended child processes, and telling those who wait for one.
//!
//! The shim is the subreaper of everything below it, so it is the parent of each container's first
//! process once its launcher is gone, and of whatever a container leaves behind. It waits for any
//! child, in one place: a pid cannot be given to another process before it was collected here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::sync::oneshot;

use crate::engine::exit::Status;

/// Who waits for which child.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    awaited: HashMap<i32, oneshot::Sender<Status>>,
    /// How many launchers may still name a process.
    launching: usize,
    /// Children that ended while a launcher was yet to name its own.
    early: HashMap<i32, Status>,
}

impl Reaper {
    /// Announces that a launcher will name a process. Until [`Launching`] is dropped, the status
    /// of a process that is not known yet is kept.
    pub(crate) fn launching(&self) -> Launching<'_> {
        self.lock().launching += 1;
        Launching { reaper: self }
    }

    /// Sends the receiver the status of a child that was forked just now. Await nothing between the
    /// fork and this call.
    pub(crate) fn expect(&self, pid: i32) -> oneshot::Receiver<Status> {
        let (sender, receiver) = oneshot::channel();
        self.lock().awaited.insert(pid, sender);
        receiver
    }

    /// Collects every child that has ended.
    pub(crate) fn collect(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(status) = status_of(status) {
                self.ended(pid, status);
            }
        }
    }

    fn ended(&self, pid: Pid, status: Status) {
        let pid = pid.as_raw_nonzero().get();
        let mut inner = self.lock();
        if let Some(awaited) = inner.awaited.remove(&pid) {
            // Nobody listening any more is no reason to keep it.
            let _ = awaited.send(status);
        } else if inner.launching > 0 {
            inner.early.insert(pid, status);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A launcher is at work.
#[derive(Debug)]
pub(crate) struct Launching<'a> {
    reaper: &'a Reaper,
}

impl Launching<'_> {
    /// The launcher has named its process: whoever awaits the receiver learns how it ended.
    pub(crate) fn named(&self, pid: i32) -> oneshot::Receiver<Status> {
        let early = self.reaper.lock().early.remove(&pid);
        match early {
            Some(status) => {
                let (sender, receiver) = oneshot::channel();
                // The receiver is right here.
                let _ = sender.send(status);
                receiver
            }
            None => self.reaper.expect(pid),
        }
    }
}

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        let mut inner = self.reaper.lock();
        inner.launching -= 1;
        if inner.launching == 0 {
            inner.early.clear();
        }
    }
}

fn status_of(status: WaitStatus) -> Option<Status> {
    if let Some(code) = status.exit_status() {
        return Some(Status::from_code(code));
    }
    status.terminating_signal().map(Status::from_signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn a_process_that_ends_before_it_is_named_is_not_lost() {
        let reaper = Reaper::default();
        let launching = reaper.launching();
        reaper.ended(pid(7), Status::KILLED);
        assert_eq!(launching.named(7).try_recv(), Ok(Status::KILLED));
    }

    #[test]
    fn the_status_of_a_stranger_is_not_kept_for_the_next_process_with_its_pid() {
        let reaper = Reaper::default();
        reaper.ended(pid(7), Status::KILLED);
        drop(reaper.launching());
        let launching = reaper.launching();
        let mut receiver = launching.named(7);
        assert!(receiver.try_recv().is_err());
        reaper.ended(pid(7), Status::from_code(3));
        assert_eq!(receiver.try_recv(), Ok(Status::from_code(3)));
    }
}
