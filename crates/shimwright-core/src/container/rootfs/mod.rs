//! Mounts and unmounts the root file system that containerd describes.

mod mapped;

use std::io;
use std::path::Path;

use containerd_shim::mount::mount_rootfs;
use containerd_shim_protos::api::Mount;
use oci_spec::runtime as spec;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::entrypoint;
use crate::engine::BoxError;
use crate::error::{Context, Error};
use crate::policy;

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
        let point = match below(mount) {
            "" => target.to_owned(),
            below => target.join(below),
        };
        let mounted = mount_one(mount, &point);
        if let Err(error) = mounted {
            if let Err(error) = unmount(target) {
                tracing::warn!(%error, target = %target.display(), "cannot undo the mounts");
            }
            return Err(error)
                .with_context(|| format!("mount {} on {}", mount.source, point.display()));
        }
    }
    Ok(())
}

fn mount_one(mount: &Mount, point: &Path) -> Result<(), BoxError> {
    let (ids, options) = mapped::Ids::take(&mount.options)?;
    match ids {
        Some(ids) if mount.type_ == "overlay" => ids.overlay(&options, point),
        ids => {
            let kind = Some(mount.type_.as_str()).filter(|kind| !kind.is_empty());
            mount_rootfs(kind, Some(mount.source.as_str()), &options, point)?;
            ids.map_or(Ok(()), |ids| ids.show_at(point))
        }
    }
}

/// Whether one of `mounts` has its place below the root file system.
pub(crate) fn any_below(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| !below(mount).is_empty())
}

/// The place of a mount below the root file system; empty for the root itself.
fn below(mount: &Mount) -> &str {
    mount.target.trim_start_matches('/')
}

/// A guest that may open files of a `/proc` could write to its own engine's memory, wherever it is
/// mounted, so volumes have to be free of the kernel's file systems.
///
/// # Errors
///
/// `Invalid`, naming the volume.
pub(crate) fn refuse_kernels_volumes(mounts: &[spec::Mount]) -> Result<(), Error> {
    let mut mountinfo = None;
    for mount in mounts.iter().filter(|mount| policy::is_bind(mount)) {
        let Some(source) = mount.source() else {
            continue;
        };
        let cannot_look = || format!("look at the volume {}", source.display());
        // The mount refuses a missing one, with its name.
        let Ok(source) = std::fs::canonicalize(source) else {
            continue;
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&source, flags, Mode::empty()).with_context(cannot_look)?;
        let mut holds_one = entrypoint::is_kernels(&opened).with_context(cannot_look)?;
        if !holds_one && source.is_dir() && has_option(mount, "rbind") {
            if mountinfo.is_none() {
                mountinfo = Some(
                    std::fs::read_to_string("/proc/self/mountinfo").with_context(cannot_look)?,
                );
            }
            let table = mountinfo.as_deref().unwrap_or_default();
            holds_one = mounts_below(table, &source)
                .iter()
                .any(|point| is_kernels(Path::new(point)));
        }
        if holds_one {
            return Err(Error::invalid(format!(
                "the volume {} holds a file system of the kernel's, which a guest may not use",
                source.display()
            )));
        }
    }
    Ok(())
}

fn has_option(mount: &spec::Mount, name: &str) -> bool {
    mount
        .options()
        .iter()
        .flatten()
        .any(|option| option == name)
}

fn is_kernels(point: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(point, flags, Mode::empty());
    // What cannot be looked at may be one.
    opened.map_or(true, |opened| {
        entrypoint::is_kernels(opened).unwrap_or(true)
    })
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
pub(super) fn unescape(text: &str) -> String {
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
    mapped::fuzz(mountinfo);
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
