//! Mounting the root file system that containerd describes, and unmounting it.

use std::io;
use std::path::Path;

use containerd_shim::mount::mount_rootfs;
use containerd_shim_protos::api::Mount;
use rustix::mount::UnmountFlags;

use crate::error::{Context, Error};

/// Mounts `mounts` in order on `target`, which is made if it is missing.
///
/// Launcher process: very long overlay options change the working directory.
///
/// # Errors
///
/// The first mount that failed; the ones before it have been undone.
pub(crate) fn mount(mounts: &[Mount], target: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .mode(0o711)
        .recursive(true)
        .create(target)
        .with_context(|| format!("make {}", target.display()))?;
    for mount in mounts {
        let target = match mount.target.trim_start_matches('/') {
            "" => target.to_owned(),
            below => target.join(below),
        };
        let mounted = mount_rootfs(
            Some(&mount.type_)
                .filter(|kind| !kind.is_empty())
                .map(String::as_str),
            Some(mount.source.as_str()),
            &mount.options,
            &target,
        );
        if let Err(error) = mounted {
            let _ = unmount(&target);
            return Err(error)
                .with_context(|| format!("mount {} on {}", mount.source, target.display()));
        }
    }
    Ok(())
}

/// Unmounts all that is mounted on `target` or below; nothing there is no error.
///
/// A mount that is still busy is detached, so it goes away with its last user.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let below = mounts_below(&std::fs::read_to_string("/proc/self/mountinfo")?, target);
    for point in below.iter().rev() {
        unmount_one(Path::new(point))?;
    }
    Ok(())
}

/// Unmounts what is mounted on `target` itself, without reading the mount table.
pub(crate) fn unmount_one(target: &Path) -> io::Result<()> {
    loop {
        let flags = UnmountFlags::NOFOLLOW;
        let unmounted = match rustix::mount::unmount(target, flags) {
            Err(rustix::io::Errno::BUSY) => {
                rustix::mount::unmount(target, flags | UnmountFlags::DETACH)
            }
            other => other,
        };
        match unmounted {
            Ok(()) => {}
            // EINVAL: no mount point, that is, no longer one; another cleaner may be at work.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The mount points at or below `target`, in the order they were mounted.
fn mounts_below(mountinfo: &str, target: &Path) -> Vec<String> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|point| Path::new(point).starts_with(target))
        .collect()
}

/// Mount points are written with octal escapes for white space and backslashes
/// (`proc_pid_mountinfo(5)`).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds mounts in a mount table, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(mountinfo: &str) {
    let target = Path::new("/b/rootfs");
    for point in mounts_below(mountinfo, target) {
        assert!(Path::new(&point).starts_with(target), "{point:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_at_or_below_the_target_are_found() {
        let mountinfo = "\
1 0 0:1 / / rw - ext4 x rw
2 1 0:2 / /b/rootfs rw - overlay x rw
3 1 0:3 / /b/rootfs-other rw - overlay x rw
4 2 0:4 / /b/rootfs/a\\040b rw - tmpfs x rw
";
        let found = mounts_below(mountinfo, Path::new("/b/rootfs"));
        assert_eq!(found, ["/b/rootfs", "/b/rootfs/a b"]);
    }

    #[test]
    fn unmounting_nothing_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        unmount(directory.path()).unwrap();
        unmount(&directory.path().join("missing")).unwrap();
    }
}
