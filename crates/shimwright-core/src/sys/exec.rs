//! Replaces this process by another program.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Replaces this process by the program behind an open descriptor; returns only on failure.
pub(crate) fn exec_fd(program: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    exec_at(program.as_raw_fd(), c"", libc::AT_EMPTY_PATH, args, env)
}

/// Replaces this process by the program `name` in a directory; returns only on failure.
pub(crate) fn exec_in(
    directory: BorrowedFd<'_>,
    name: &CStr,
    args: &[CString],
    env: &[CString],
) -> io::Error {
    exec_at(directory.as_raw_fd(), name, 0, args, env)
}

/// Replaces this process by the program at `path`; returns only on failure.
pub(crate) fn exec_path(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists are null-terminated arrays of strings that outlive the call.
    //
    // A filter of system calls may allow this one only, as it is what other runtimes make.
    unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let pointers = strings.iter().map(|s| s.as_ptr());
    pointers.chain([std::ptr::null()]).collect()
}

fn exec_at(dir: RawFd, path: &CStr, flags: i32, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists are null-terminated arrays of strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            dir,
            path.as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            flags,
        )
    };
    io::Error::last_os_error()
}
