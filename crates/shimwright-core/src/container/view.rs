//! What a guest sees that joins the container of a Linux program.
//!
//! Such a container has what no guest may have: `/proc`, through which a guest that may open files
//! below `/` would write to its own engine's memory, and other file systems of the kernel's. And it was
//! made without the node's limits for guests. So the guest gets a mount namespace of its own, with the
//! root and the volumes of the container and nothing else, and a network namespace of its own if the
//! node gives guests none.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

use super::entrypoint;
use crate::engine::limits::Limits;
use crate::sys;

/// The place of the devices, whose nodes are the container's own.
const DEVICES: &str = "/dev";

/// A guest's own view of a container.
#[derive(Debug)]
pub(super) struct View {
    hides_image: bool,
    read_only: bool,
    isolates_network: bool,
    /// Where the working directory has to be.
    cwd: PathBuf,
    /// Where the container's volumes are, outermost first.
    volumes: Vec<PathBuf>,
}

/// A volume on its way from the container's mounts to the guest's.
struct Volume<'a> {
    place: &'a Path,
    mount: OwnedFd,
    is_directory: bool,
}

impl View {
    /// What these limits leave of the container of `spec`, which has been restricted as a guest's.
    pub(super) fn new(limits: &Limits, spec: &Spec, cwd: &Path) -> Self {
        let mounts = spec.mounts().iter().flatten();
        let places = mounts.map(Mount::destination);
        Self {
            hides_image: limits.hides_image(),
            read_only: limits.is_read_only(),
            isolates_network: limits.isolates_network(),
            cwd: entrypoint::normal(cwd),
            volumes: places.map(|place| entrypoint::normal(place)).collect(),
        }
    }

    /// Whether the guest has a network namespace of its own instead of the container's.
    pub(super) fn isolates_network(&self) -> bool {
        self.isolates_network
    }

    /// Enters it. The process is in the container's namespaces, has one thread, and every capability
    /// there.
    ///
    /// # Errors
    ///
    /// The step that failed; the process must not go on.
    pub(super) fn enter(&self) -> io::Result<()> {
        if self.isolates_network {
            sys::process::unshare(UnshareFlags::NEWNET)?;
        }
        let container = open(CWD, Path::new("/"))?;
        let root = if self.hides_image {
            empty_root()?
        } else {
            sys::mount::clone_mount(&container, "", false)?
        };
        let volumes = self.volumes.iter().map(|place| volume(&container, place));
        let volumes: Vec<_> = volumes.collect::<io::Result<Vec<_>>>()?;
        let volumes: Vec<_> = volumes.into_iter().flatten().collect();
        if self.hides_image {
            self.make_places(&root, &volumes)?;
        }
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if self.read_only || self.hides_image {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        sys::mount::set_mount_attributes(&root, attributes, false)?;

        sys::process::unshare(UnshareFlags::NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        // The copy of the container's mounts, which is this process's alone.
        let copy = open(CWD, Path::new("/"))?;
        // It covers the root of the process, and nothing resolves a path before it takes its place.
        attach(&root, &copy)?;
        for volume in volumes {
            if volume.place != Path::new(DEVICES) {
                let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
                sys::mount::set_mount_attributes(&volume.mount, nodev, false)?;
            }
            attach(&volume.mount, &open(&root, volume.place)?)?;
        }
        become_root(&root, &copy)
    }

    /// Makes the places of what is mounted in an empty root.
    fn make_places(&self, root: &OwnedFd, volumes: &[Volume<'_>]) -> io::Result<()> {
        make_directory(root, &self.cwd)?;
        for volume in volumes {
            if volume.is_directory {
                make_directory(root, volume.place)?;
                continue;
            }
            make_directory(root, volume.place.parent().unwrap_or(Path::new("/")))?;
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(
                root,
                inside(volume.place),
                flags,
                Mode::from_raw_mode(0o644),
            )?;
        }
        Ok(())
    }
}

/// Opens what is at a path, as seen from a root.
fn open(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// A volume of the container, without what is mounted below it; nothing if there is no mount, or one of
/// the kernel's file systems: the container may have unmounted or covered it.
fn volume<'a>(container: &OwnedFd, place: &'a Path) -> io::Result<Option<Volume<'a>>> {
    let found = match open(container, place) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let flags = AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(&found, "", flags, StatxFlags::BASIC_STATS)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || entrypoint::is_kernels(&found)?
    {
        return Ok(None);
    }
    let kind = rustix::fs::FileType::from_raw_mode(stat.stx_mode.into());
    Ok(Some(Volume {
        place,
        mount: sys::mount::clone_mount(&found, "", false)?,
        is_directory: kind.is_dir(),
    }))
}

/// An empty file system in memory.
fn empty_root() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
    rustix::mount::fsconfig_set_string(&context, "size", "64k")?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(
        &context,
        flags,
        MountAttrFlags::empty(),
    )?)
}

fn make_directory(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let mut made = PathBuf::new();
    for part in inside(path).components() {
        made.push(part);
        match rustix::fs::mkdirat(root, &made, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A path of the container, as seen from its root.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn attach(mount: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}

/// Takes a mount as the root, and away all others (`pivot_root(2)`, `pivot_root(".", ".")`).
fn become_root(root: &OwnedFd, before: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(before)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
