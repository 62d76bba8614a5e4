//! The root of a mount namespace: its propagation, and the way from the node's to the container's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MS_PRIVATE, MS_REC, MS_SLAVE};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};

use super::options::Flags;
use crate::container::rootfs::unescape;
use crate::sys::mount::{attach, clone_mount, set_mount_attributes};

/// What the mounts of a namespace are unless the spec says something else: what is unmounted on the node
/// goes away here too.
const DEFAULT: Flags = MS_SLAVE | MS_REC;

/// Makes the root a mount of its own, which tells the node nothing.
///
/// With `without_devices`, the kernel opens no device node there. With `prepared`, that is the root if
/// this process cannot reach the path: directories of the node that the first user of a user namespace
/// may not search are above it.
pub(super) fn prepare(
    root: &Path,
    propagation: Option<Flags>,
    without_devices: bool,
    prepared: Option<&OwnedFd>,
) -> io::Result<OwnedFd> {
    change("/", propagation.unwrap_or(DEFAULT))?;
    let mount = match (attach_at(root, propagation), prepared) {
        (Err(error), Some(prepared)) if error.kind() == io::ErrorKind::PermissionDenied => {
            change("/", MS_PRIVATE)?;
            // Over the root of this process, where no path leads to it.
            attach(prepared, open_directory("/")?)?;
            prepared.try_clone()?
        }
        (mount, _) => mount?,
    };
    if without_devices {
        set_mount_attributes(&mount, MountAttrFlags::MOUNT_ATTR_NODEV, true)?;
    }
    Ok(mount)
}

fn attach_at(root: &Path, propagation: Option<Flags>) -> io::Result<OwnedFd> {
    let parent = of_parent(propagation);
    let mut point = root;
    loop {
        match change(point, parent) {
            // It is no mount point.
            Err(Errno::INVAL) => point = point.parent().ok_or(Errno::INVAL)?,
            other => break other?,
        }
    }
    let mount = clone_mount(CWD, root, true)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, root, flags)?;
    Ok(mount)
}

/// The propagation of the mount that the root is in. If it were shared, the root as a mount of its own would
/// be the node's too, and could not become the root.
pub(super) fn of_parent(propagation: Option<Flags>) -> Flags {
    if propagation.unwrap_or(0) & MS_SLAVE != 0 {
        MS_SLAVE
    } else {
        MS_PRIVATE
    }
}

fn change(point: impl rustix::path::Arg, propagation: Flags) -> Result<(), Errno> {
    let bits = u32::try_from(propagation).map_err(|_| Errno::INVAL)?;
    let flags = MountPropagationFlags::from_bits_retain(bits);
    rustix::mount::mount_change(point, flags)
}

/// Takes a mount as the root, and all of the node's away (`pivot_root(2)`, `pivot_root(".", ".")`).
pub(super) fn pivot(root: BorrowedFd<'_>, propagation: Option<Flags>) -> io::Result<()> {
    let before = open_directory("/")?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&before)?;
    if propagation.is_some_and(|propagation| propagation != DEFAULT) {
        // Nothing is to be unmounted on the node.
        change(".", DEFAULT)?;
    }
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Moves a mount over the root, where the node's mounts stay below it. Full file systems of the kernel's
/// must not: they could be reached, and would let the kernel mount others that nothing masks.
pub(super) fn move_over(root: BorrowedFd<'_>, place: &Path) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    for point in full_kernel_mounts(&table, place) {
        match change(&point, DEFAULT) {
            // It was below one that is gone.
            Err(Errno::NOENT) => continue,
            other => other?,
        }
        match rustix::mount::unmount(&point, UnmountFlags::DETACH) {
            // Another user namespace has locked it.
            Err(Errno::INVAL | Errno::PERM) => attach(empty()?, open_directory(&point)?)?,
            other => other?,
        }
    }
    rustix::process::fchdir(root)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(root, "", CWD, "/", flags)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// The places where all of a `proc` or `sysfs` is mounted, but for those in the container.
fn full_kernel_mounts(table: &str, root: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (top, point) = (before.next()?, before.next()?);
        let kind = after.split(' ').next()?;
        let is_full = top == "/" && matches!(kind, "proc" | "sysfs");
        is_full.then(|| PathBuf::from(unescape(point)))
    });
    points.filter(|point| !point.starts_with(root)).collect()
}

/// The propagation that the spec asks for, now that it concerns the container's mounts only.
pub(super) fn propagate(propagation: Option<Flags>) -> io::Result<()> {
    match propagation {
        Some(propagation) if propagation & (MS_PRIVATE | MS_SLAVE) == 0 => {
            Ok(change("/", propagation)?)
        }
        _ => Ok(()),
    }
}

fn open_directory(path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A file system with nothing in it, for nothing else, detached.
pub(super) fn empty() -> io::Result<OwnedFd> {
    let mount = |inodes: &str| -> io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "source", "tmpfs")?;
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
        rustix::mount::fsconfig_set_string(&context, "nr_blocks", "1")?;
        rustix::mount::fsconfig_set_string(&context, "nr_inodes", inodes)?;
        rustix::mount::fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        Ok(rustix::mount::fsmount(context.as_fd(), flags, read_only)?)
    };
    // Some kernels count more than the directory itself.
    mount("1").or_else(|_| mount("2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_file_systems_of_the_kernel_are_found() {
        let table = "\
1 0 0:1 / / rw - ext4 x rw
2 1 0:2 / /proc rw - proc proc rw
3 2 0:2 /sys /proc/sys ro - proc proc rw
4 1 0:4 / /sys\\040too rw shared:2 - sysfs sysfs rw
5 1 0:2 / /r/proc rw - proc proc rw
";
        let found = full_kernel_mounts(table, Path::new("/r"));
        assert_eq!(found, [Path::new("/proc"), Path::new("/sys too")]);
    }
}
