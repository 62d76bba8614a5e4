//! Waits for a notification of the kernel about a cgroup.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::inotify::WatchFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// A descriptor that becomes readable when something has happened.
#[derive(Debug)]
pub(crate) struct Notice(AsyncFd<OwnedFd>);

impl Notice {
    /// Of changes of a file such as `cgroup.events`: "a file modified event" in the words of
    /// `cgroup-v2.rst`.
    pub(crate) fn of_changes(file: &Path) -> io::Result<Self> {
        Ok(Self(sys::fd::watch_file(file, WatchFlags::MODIFY)?))
    }

    /// Of a v1 group that runs out of memory (`cgroup-v1/memory.rst`, "OOM Control"). The
    /// group's removal is one more notice.
    pub(crate) fn of_oom(memory: &Path) -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let control = std::fs::File::open(memory.join("memory.oom_control"))?;
        let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        super::file::open_to_write(&memory.join("cgroup.event_control"))?
            .write_all(order.as_bytes())?;
        Ok(Self(sys::fd::watch(event)?))
    }

    /// Waits for the next notice. Several that nobody waited for are one.
    pub(crate) async fn next(&self) -> io::Result<()> {
        // One read takes the whole count of an eventfd, and as many changes as fit.
        let mut buffer = [0; 1024];
        self.0
            .async_io(Interest::READABLE, |descriptor| {
                Ok(rustix::io::read(descriptor, &mut buffer)?)
            })
            .await
            .map(drop)
    }
}
