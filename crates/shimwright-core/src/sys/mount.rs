//! Detached mounts (`open_tree(2)`, `mount_setattr(2)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

/// A mount of its own over what is at `path`, which is in no mount namespace and is read-only.
///
/// Nothing can be written through it, whatever the modes of its files and the capabilities of the
/// process are, and `..` ends at `path`. The result is a descriptor for finding files only
/// (`O_PATH`). With `recursive` the mounts below `path` are part of it.
///
/// # Errors
///
/// Those of `open_tree` and `mount_setattr`; the latter is there since Linux 5.12.
pub(crate) fn read_only_clone(
    path: impl rustix::path::Arg,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let clone = clone_mount(CWD, path, recursive)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    set_mount_attributes(&clone, flags, recursive)?;
    Ok(clone)
}

/// A detached mount of its own over what is at `path`, seen from `directory`. An empty path is
/// `directory` itself.
pub(crate) fn clone_mount(
    directory: impl AsFd,
    path: impl rustix::path::Arg,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(directory, path, flags)?)
}

/// Sets attributes of the mount behind a descriptor, and with `recursive` of those below it. No
/// attribute is taken away.
pub(crate) fn set_mount_attributes(
    mount: impl AsFd,
    attributes: MountAttrFlags,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, and `attributes` is a complete structure of the given size
    // that the kernel only reads.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
