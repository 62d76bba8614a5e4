//! Locks of single bytes of a file.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes an exclusive lock of one byte of `file`, which ends with the open file description
/// (`F_OFD_SETLK` of `fcntl(2)`), and returns whether it was free.
pub(crate) fn try_lock_byte(file: BorrowedFd<'_>, offset: i64) -> io::Result<bool> {
    match lock(file, offset, libc::F_OFD_SETLK) {
        Ok(()) => Ok(true),
        // EAGAIN or EACCES.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn lock(file: BorrowedFd<'_>, offset: i64, command: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and `lock` is a complete `struct flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
