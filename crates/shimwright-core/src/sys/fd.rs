//! Descriptors: closing, inheriting, waiting.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Closes every descriptor above standard error but these.
///
/// Only at the very start of a process, or of a forked child.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for last in keep
        .into_iter()
        .filter(|&fd| fd >= 3)
        .map(Some)
        .chain([None])
    {
        let end = last.map_or(u32::MAX, |fd| fd - 1);
        if first <= end {
            // SAFETY: called either before this process has opened anything, or in a freshly forked
            // child, which leaves the owners of these descriptors behind: it ends with `exit_now`
            // or `exec` and drops none of them.
            if unsafe { libc::close_range(first, end, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = last.map_or(u32::MAX, |fd| fd + 1);
    }
    Ok(())
}

/// Has a descriptor refer to what another one refers to: whoever has its number goes on there.
pub(crate) fn redirect(descriptor: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let (from, onto) = (to.as_fd().as_raw_fd(), descriptor.as_fd().as_raw_fd());
    // SAFETY: both are open, and stay open: the number is replaced at once, and keeps its owner.
    match unsafe { libc::dup3(from, onto, libc::O_CLOEXEC) } {
        failed if failed < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Closes a descriptor that nothing in this process owns any more.
///
/// Only in a forked child that leaves the owner behind: it executes or ends with [`exit_now`].
pub(crate) fn close(descriptor: RawFd) {
    // SAFETY: the owner of the number is never dropped in the child, as documented.
    unsafe { libc::close(descriptor) };
}

/// Closes every descriptor of a file, directory or device above standard error but these. Pipes and
/// sockets stay.
///
/// Only in a forked child, as for [`close`].
pub(crate) fn close_files_but(keep: &[RawFd]) -> io::Result<()> {
    /// The kernel gives away the lowest free number, and such a child has a few dozen.
    const LOOKED_AT: RawFd = 256;
    for number in 3..LOOKED_AT {
        // SAFETY: the descriptor is only asked for, for the length of this expression.
        let found = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) });
        let Ok(found) = found else { continue };
        let kind = rustix::fs::FileType::from_raw_mode(found.st_mode);
        if !(kind.is_fifo() || kind.is_socket() || keep.contains(&number)) {
            close(number);
        }
    }
    // SAFETY: as for `close`.
    match unsafe { libc::close_range(LOOKED_AT.unsigned_abs(), u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets `descriptor` survive the next `exec`.
pub(crate) fn keep_over_exec(descriptor: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(
        descriptor,
        rustix::io::FdFlags::empty(),
    )?)
}

/// Copies descriptors to the numbers from `first` on, where a program expects them after `exec`.
///
/// Only in a forked child that is about to execute: what had these numbers is closed.
pub(crate) fn place(descriptors: &[OwnedFd], first: RawFd) -> io::Result<()> {
    let beyond = (first..).nth(descriptors.len()).unwrap_or(RawFd::MAX);
    // One of them may sit on the number of another.
    let moved = descriptors
        .iter()
        .map(|descriptor| Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, beyond)?))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    for (number, descriptor) in (first..).zip(&moved) {
        // SAFETY: the child leaves the owners of these numbers behind: it executes or ends with
        // `exit_now`, and drops none of them before that.
        if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes ownership of a descriptor this process was started with.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` with `F_GETFD` only inspects the number.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, and the role that was handed its number is its only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Waits until a descriptor is readable: for a pidfd, until its process has ended.
///
/// # Errors
///
/// `TimedOut` if it is not before the deadline.
pub(crate) fn wait_readable(descriptor: impl AsFd, deadline: std::time::Instant) -> io::Result<()> {
    if becomes_readable(descriptor, deadline)? {
        return Ok(());
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits likewise, and says whether it is readable before the deadline.
pub(crate) fn becomes_readable(
    descriptor: impl AsFd,
    deadline: std::time::Instant,
) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut wanted, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the other end of a pipe has been closed.
pub(crate) fn is_hung_up(pipe: impl AsFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut wanted = [PollFd::new(&pipe, PollFlags::empty())];
    poll(&mut wanted, Some(&Timespec::default()))?;
    Ok(wanted[0].revents().contains(PollFlags::HUP))
}

/// Has the async runtime watch what happens to a file (`inotify(7)`).
pub(crate) fn watch_file(
    file: &Path,
    events: WatchFlags,
) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&inotify, file, events)?;
    watch(inotify)
}

/// Has the async runtime watch a descriptor.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and the
    // watch owns it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(descriptor) }?)
}
