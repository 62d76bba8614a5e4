//! A thread with a namespace of its own, which containers join.

use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use rustix::thread::{Pid, UnshareFlags, gettid};

/// Holds a namespace until it is dropped.
#[derive(Debug)]
pub(crate) struct Holder {
    thread: Pid,
    end: Option<Sender<()>>,
    handle: Option<JoinHandle<()>>,
}

impl Holder {
    /// Makes a namespace.
    pub(crate) fn with(flag: UnshareFlags) -> Self {
        let (ready, made) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let handle = std::thread::spawn(move || {
            #[expect(deprecated, reason = "the flag concerns no descriptors")]
            let unshared = rustix::thread::unshare(flag);
            // Whoever waits for it has given up otherwise.
            let _ = ready.send(unshared.map(|()| gettid()));
            let _: Result<(), _> = ended.recv();
        });
        let thread = match made.recv() {
            Ok(Ok(thread)) => thread,
            failed => panic!("cannot make a namespace: {failed:?}"),
        };
        Self {
            thread,
            end: Some(end),
            handle: Some(handle),
        }
    }

    /// The directory of its namespaces.
    pub(crate) fn namespaces(&self) -> String {
        let (process, thread) = (std::process::id(), self.thread.as_raw_nonzero());
        format!("/proc/{process}/task/{thread}/ns")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end = None;
        let _ = self.handle.take().map(JoinHandle::join);
    }
}
