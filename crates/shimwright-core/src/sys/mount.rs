//! Detached mounts (`open_tree(2)`, `mount_setattr(2)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};

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
    let change = Change {
        set: u64::from(attributes.bits()),
        ..Change::default()
    };
    change.of(mount, recursive)
}

/// A change of the attributes of a mount (`mount_setattr(2)`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change<'a> {
    /// The attributes to set, of `MOUNT_ATTR_*`.
    pub(crate) set: u64,
    /// The attributes to clear.
    pub(crate) clear: u64,
    /// The propagation, one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub(crate) propagation: u64,
    /// The user namespace whose ids the mount is to show.
    pub(crate) ids_of: Option<BorrowedFd<'a>>,
}

impl Change<'_> {
    /// A change of nothing but the propagation.
    pub(crate) fn propagation(propagation: u64) -> Self {
        Self {
            propagation,
            ..Self::default()
        }
    }

    /// Changes the mount behind a descriptor, and with `recursive` those below it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the descriptor is not the root of a mount of this namespace or a detached one;
    /// `EPERM` if the mount is locked by another user namespace.
    pub(crate) fn of(&self, mount: impl AsFd, recursive: bool) -> io::Result<()> {
        let ids_of = self.ids_of.map_or(0, |fd| fd.as_raw_fd().unsigned_abs());
        let id_map = self.ids_of.map_or(0, |_| libc::MOUNT_ATTR_IDMAP);
        let attributes = libc::mount_attr {
            attr_set: self.set | id_map,
            attr_clr: self.clear,
            propagation: self.propagation,
            userns_fd: u64::from(ids_of),
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
}

/// Attaches a detached mount over what is behind another descriptor.
pub(crate) fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}
