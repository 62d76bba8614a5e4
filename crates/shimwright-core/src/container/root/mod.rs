//! Stand-in on libcontainer's.

use std::path::{Path, PathBuf};

use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::mount::{MountAttrFlags, MountFlags};

use crate::cgroup::Cgroups;
use crate::error::{Context, Error};

#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) root: &'a Path,
    pub(crate) no_pivot: bool,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) is_guest: bool,
}

pub(crate) struct Root {
    spec: Spec,
    root: PathBuf,
    is_guest: bool,
}

impl Root {
    pub(crate) fn prepare(settings: &Settings<'_>) -> Result<Self, Error> {
        Ok(Self {
            spec: settings.spec.clone(),
            root: settings.root.to_owned(),
            is_guest: settings.is_guest,
        })
    }
    pub(crate) fn mount(&self) -> Result<(), Error> {
        let has = |kind| {
            self.spec
                .linux()
                .iter()
                .flat_map(|l| l.namespaces().iter().flatten())
                .any(|n| n.typ() == kind)
        };
        libcontainer::rootfs::RootFS::new()
            .prepare_rootfs(
                &self.spec,
                &self.root,
                has(LinuxNamespaceType::User),
                has(LinuxNamespaceType::Cgroup),
            )
            .context("x")?;
        if self.is_guest {
            let fd = rustix::fs::open(
                &self.root,
                rustix::fs::OFlags::PATH,
                rustix::fs::Mode::empty(),
            )
            .context("x")?;
            crate::sys::mount::set_mount_attributes(fd, MountAttrFlags::MOUNT_ATTR_NODEV, false)
                .context("x")?;
        }
        Ok(())
    }
    pub(crate) fn enter(&self) -> Result<(), Error> {
        SyscallType::Linux
            .create_syscall()
            .pivot_rootfs(&self.root)
            .context("pivot")?;
        Ok(())
    }
    pub(crate) fn seal(&self) -> Result<(), Error> {
        let linux = self.spec.linux().as_ref().unwrap();
        let bind = |from: &str, path: &str| rustix::mount::mount_bind(from, path);
        for path in linux.readonly_paths().iter().flatten() {
            if bind(path, path).is_ok() {
                rustix::mount::mount_remount(
                    path,
                    MountFlags::BIND
                        | MountFlags::RDONLY
                        | MountFlags::NOSUID
                        | MountFlags::NODEV
                        | MountFlags::NOEXEC,
                    "",
                )
                .context("ro")?;
            }
        }
        for path in linux.masked_paths().iter().flatten() {
            if Path::new(path).is_dir() {
                rustix::mount::mount("tmpfs", path.as_str(), "tmpfs", MountFlags::RDONLY, None)
                    .context("mask")?;
            } else {
                let _ = bind("/dev/null", path);
            }
        }
        if self.spec.root().as_ref().unwrap().readonly() == Some(true) {
            rustix::mount::mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, "")
                .context("ro root")?;
        }
        Ok(())
    }
}
