//! cgroup v1: one hierarchy for each controller or few of them, and a group in each.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::file;

/// The controllers a container gets a group of (OCI runtime spec, "Control groups").
pub(super) const CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// The groups of a container, by controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups(pub(super) BTreeMap<String, PathBuf>);

impl Groups {
    /// The directory of a controller's group.
    pub(crate) fn directory(&self, controller: &str) -> Option<&Path> {
        self.0.get(controller).map(PathBuf::as_path)
    }

    /// Whether there is a group that controls something. systemd has one more hierarchy, which does
    /// not.
    pub(super) fn control_something(&self) -> bool {
        CONTROLLERS.iter().any(|name| self.0.contains_key(*name))
    }

    /// The group to ask which processes there are: they join each of them together.
    pub(super) fn with_all_processes(&self) -> Option<&Path> {
        let preferred = ["pids", "memory", "devices", "freezer"];
        let preferred = preferred.iter().find_map(|name| self.directory(name));
        preferred.or_else(|| self.0.values().next().map(PathBuf::as_path))
    }

    /// The directories. Controllers that are mounted together have one.
    pub(super) fn directories(&self) -> BTreeSet<&Path> {
        self.0.values().map(PathBuf::as_path).collect()
    }

    /// Moves this process, which has a single thread, into every group.
    ///
    /// A thread that moves itself, named as `0` in `tasks`, can neither end nor execute meanwhile,
    /// so the kernel does without the lock that `cgroup.procs` takes for that, and without waiting
    /// for an RCU grace period (`cgroup_procs_write_start` in `kernel/cgroup/cgroup.c`).
    pub(super) fn join(&self) -> io::Result<()> {
        let mut directories = self.0.values();
        directories.try_for_each(|directory| file::write(&directory.join("tasks"), "0"))
    }

    /// Makes the groups, ready to be joined. `top` is that of the `cpuset` hierarchy.
    pub(super) fn make(&self, top: Option<&Path>) -> io::Result<()> {
        for directory in self.directories() {
            super::make(directory)?;
        }
        match (self.directory("cpuset"), top) {
            (Some(directory), Some(top)) => inherit_cpuset(directory, top),
            _ => Ok(()),
        }
    }
}

/// A new group of `cpuset` has no processors and no memory, and takes no process until it has.
fn inherit_cpuset(directory: &Path, top: &Path) -> io::Result<()> {
    let is_set = |file: &str| {
        std::fs::read_to_string(directory.join(file)).map(|text| !text.trim().is_empty())
    };
    if directory == top || (is_set("cpuset.cpus")? && is_set("cpuset.mems")?) {
        return Ok(());
    }
    let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
    inherit_cpuset(parent, top)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        std::fs::write(directory.join(file), std::fs::read(parent.join(file))?)?;
    }
    Ok(())
}
