//! Mounts of type `cgroup`.
//!
//! libcontainer 0.7 mounts each v1 hierarchy writable, whatever the options are.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC};
use rustix::fs::{Mode, OFlags};

use super::Root;
use super::filesystem::New;
use super::mounts::{self, Entry};
use super::options::Options;
use crate::cgroup::{Cgroups, Hierarchies};
use crate::sys::mount::{Change, attach};

/// The cgroups that a container may see.
#[derive(Debug)]
pub(super) enum View {
    /// One for each v1 hierarchy.
    V1(Vec<Hierarchy>),
    V2 {
        point: PathBuf,
        own: Option<PathBuf>,
    },
}

/// A v1 hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    point: PathBuf,
    /// The group of the container's processes.
    group: PathBuf,
    /// It is a group of the container.
    is_own: bool,
}

impl View {
    pub(super) fn new(cgroups: &Cgroups, hierarchies: &Hierarchies) -> io::Result<Self> {
        if !hierarchies.is_legacy() {
            return Ok(Self::V2 {
                point: hierarchies
                    .unified_point()
                    .unwrap_or(Path::new("/sys/fs/cgroup"))
                    .to_owned(),
                own: cgroups.unified_directory().map(Path::to_owned),
            });
        }
        let seen = hierarchies.seen_by(cgroups)?;
        let seen = seen.into_iter().map(|(point, group, is_own)| Hierarchy {
            point,
            group,
            is_own,
        });
        Ok(Self::V1(seen.collect()))
    }
}

pub(super) fn mount(root: &Root, entry: &Entry) -> io::Result<()> {
    match root.cgroups() {
        Some(View::V1(hierarchies)) => v1(root, entry, hierarchies),
        Some(View::V2 { point, own }) => v2(root, entry, point, own.as_deref()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// A file system in memory with a directory for each hierarchy, and links for controllers that are
/// mounted together.
fn v1(root: &Root, entry: &Entry, hierarchies: &[Hierarchy]) -> io::Result<()> {
    let place = mounts::place(root.file()?, entry, None)?;
    let flags = MS_NOEXEC | MS_NOSUID | MS_NODEV;
    let options = Options {
        flags,
        data: vec!["mode=755".to_owned()],
        ..Options::default()
    };
    let top = New {
        kind: "tmpfs",
        source: Path::new("tmpfs"),
        options: &options,
        label: root.label(),
    };
    let top = top.mount()?;
    mounts::propagate(&top, &entry.options.propagation)?;
    attach(&top, &place.file)?;
    let is_read_only = entry.options.has(MS_RDONLY);
    for hierarchy in hierarchies {
        let Some(name) = hierarchy.point.file_name() else {
            continue;
        };
        let mount = if root.has_cgroup_namespace() {
            fresh(name, flags | if is_read_only { MS_RDONLY } else { 0 })?
        } else {
            group(entry, hierarchy)?
        };
        attach(&mount, &directory(&top, name)?)?;
        links(&top, name)?;
    }
    if is_read_only {
        let change = Change {
            set: libc::MOUNT_ATTR_RDONLY,
            ..Change::default()
        };
        change.of(&top, false)?;
    }
    Ok(())
}

fn directory(top: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(top, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(top, name, flags, Mode::empty())?)
}

fn links(top: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let controllers = name.to_str().filter(|name| name.contains(','));
    for controller in controllers.into_iter().flat_map(|name| name.split(',')) {
        match rustix::fs::symlinkat(name, top, controller) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The hierarchy as the cgroup namespace of the container shows it.
fn fresh(name: &OsStr, flags: u64) -> io::Result<OwnedFd> {
    let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?;
    let (source, data) = match name {
        "systemd" => ("systemd", "name=systemd"),
        controllers => ("cgroup", controllers),
    };
    let options = Options {
        flags,
        data: vec![data.to_owned()],
        ..Options::default()
    };
    let new = New {
        kind: "cgroup",
        source: Path::new(source),
        options: &options,
        label: None,
    };
    new.mount()
}

/// The group of the container's processes. One that they share with the shim is read-only.
fn group(entry: &Entry, hierarchy: &Hierarchy) -> io::Result<OwnedFd> {
    let mut options = entry.options.clone();
    options.flags |= MS_BIND | MS_REC;
    if !hierarchy.is_own {
        options.flags |= MS_RDONLY;
        options.cleared &= !MS_RDONLY;
    }
    let tree = mounts::open_tree(&hierarchy.group, true)?;
    mounts::set_flags(&tree, &options)?;
    mounts::propagate(&tree, &options.propagation)?;
    Ok(tree)
}

fn v2(root: &Root, entry: &Entry, point: &Path, own: Option<&Path>) -> io::Result<()> {
    let place = mounts::place(root.file()?, entry, None)?;
    let new = New {
        kind: "cgroup2",
        source: &entry.source,
        options: &entry.options,
        label: None,
    };
    let mount = match new.mount() {
        Ok(mount) => mount,
        // A user namespace may mount it only in a cgroup namespace of its own.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY)) => {
            let own = own.filter(|_| root.has_cgroup_namespace());
            let mut options = entry.options.clone();
            options.flags |= MS_BIND;
            let tree = mounts::open_tree(own.unwrap_or(point), false)?;
            mounts::set_flags(&tree, &options)?;
            tree
        }
        Err(error) => return Err(error),
    };
    mounts::propagate(&mount, &entry.options.propagation)?;
    attach(&mount, &place.file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::tests::{Bundle, apart};
    use super::*;

    /// Mounts two hierarchies, one with a group of the container, and looks at them.
    fn with_hierarchies(option: &str, look: impl FnOnce()) {
        let bundle = Bundle::new();
        let hierarchy = |name: &str, is_own| Hierarchy {
            point: Path::new("/somewhere").join(name),
            group: bundle.volume(name),
            is_own,
        };
        let view = View::V1(vec![
            hierarchy("cpu,cpuacct", true),
            hierarchy("systemd", false),
        ]);
        apart(|| {
            let mut root = bundle
                .prepare(&json!({ "mounts": [
                    { "destination": "/sys/fs/cgroup", "type": "cgroup", "options": [option] }] }))
                .unwrap();
            root.cgroups = Some(view);
            root.mount().unwrap();
            root.enter().unwrap();
            let read = |path: &str| fs::read_to_string(path).unwrap();
            assert_eq!(read("/sys/fs/cgroup/cpuacct/file"), "cpu,cpuacct");
            assert_eq!(read("/sys/fs/cgroup/systemd/file"), "systemd");
            look();
        });
    }

    fn can_write(path: &str) -> bool {
        match fs::write(path, "") {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    #[test]
    fn groups_that_are_shared_with_the_shim_are_read_only() {
        with_hierarchies("rw", || {
            assert!(can_write("/sys/fs/cgroup/cpu/file"));
            assert!(!can_write("/sys/fs/cgroup/systemd/file"));
        });
    }

    #[test]
    fn all_of_a_read_only_mount_is_read_only() {
        with_hierarchies("ro", || {
            for path in ["cpu/file", "systemd/file", "new"] {
                assert!(!can_write(&format!("/sys/fs/cgroup/{path}")), "{path}");
            }
        });
    }
}
