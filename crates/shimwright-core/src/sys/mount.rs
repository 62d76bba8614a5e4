//! Mounts that are attached nowhere.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::mount::OpenTreeFlags;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// The same number on every architecture.
const MOUNT_SETATTR: libc::c_long = 442;
/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV`.
const READ_ONLY: u64 = 1 | 2 | 4;

/// A clone of the mount at `path`, whose root is `path`, attached nowhere and read-only: what is
/// opened through it can neither be written to, nor be given another mode or owner, by anybody. It
/// ends with the last descriptor of it.
///
/// # Errors
///
/// `Unsupported` before Linux 5.12, which has no `mount_setattr(2)`.
pub(crate) fn read_only_clone(
    path: impl rustix::path::Arg,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mut at_flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
        at_flags |= libc::AT_RECURSIVE;
    }
    let clone = rustix::mount::open_tree(rustix::fs::CWD, path, flags)?;
    let attributes = MountAttributes {
        set: READ_ONLY,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    let empty: &CStr = c"";
    // SAFETY: the path is a C string, and the structure is complete and has this size.
    let done = unsafe {
        libc::syscall(
            MOUNT_SETATTR,
            clone.as_fd().as_raw_fd(),
            empty.as_ptr(),
            at_flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if done == 0 {
        return Ok(clone);
    }
    Err(io::Error::last_os_error())
}
