//! cgroup v2: one hierarchy, and one group for all controllers.

use std::io;
use std::path::{Path, PathBuf};

use super::file;

/// The controllers that limits of the spec are kept to with.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// The group of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group(pub(super) PathBuf);

impl Group {
    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    /// Moves this process into the group, as a whole: this version moves no single threads.
    pub(super) fn join(&self) -> io::Result<()> {
        file::write(&self.0.join("cgroup.procs"), "0")
    }

    /// Kills every process at once, also what is being forked; since Linux 5.14.
    pub(super) fn kill(&self) -> io::Result<()> {
        file::write(&self.0.join("cgroup.kill"), "1")
    }
}

/// The hierarchy, by its mount point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hierarchy<'a>(pub(super) &'a Path);

impl<'a> Hierarchy<'a> {
    /// Where it is mounted.
    pub(crate) fn point(self) -> &'a Path {
        self.0
    }

    /// Has the groups above one hand on these controllers, as far as they have them: without one its
    /// limit cannot be set, which is noticed then.
    pub(crate) fn hand_on(self, group: &Group, controllers: &[&str]) {
        let mut above: Vec<_> = group.0.ancestors().skip(1).collect();
        above.retain(|group| group.starts_with(self.0));
        for group in above.into_iter().rev() {
            for controller in controllers {
                let file = group.join("cgroup.subtree_control");
                let _ = file::write(&file, &format!("+{controller}"));
            }
        }
    }

    /// Makes a group and those above it, which get the controllers of the machine as far as they
    /// can have them, as libcgroups does for a group it makes itself.
    pub(crate) fn make(self, group: &Group) -> io::Result<()> {
        let below = group.0.strip_prefix(self.0).map_err(io::Error::other)?;
        let controllers = std::fs::read_to_string(self.0.join("cgroup.controllers"))?;
        let controllers: Vec<_> = controllers
            .split_whitespace()
            .filter(|name| CONTROLLERS.contains(name))
            .collect();
        let mut current = self.0.to_owned();
        for part in below.components() {
            enable_below(&current, &controllers);
            current.push(part);
            match std::fs::create_dir(&current) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Lets the groups below one have controllers. One that cannot be had fails the limit that needs it.
fn enable_below(directory: &Path, controllers: &[&str]) {
    let control = directory.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&control).unwrap_or_default();
    for name in controllers {
        if enabled.split_whitespace().all(|enabled| enabled != *name)
            && let Err(error) = file::write(&control, &format!("+{name}"))
        {
            tracing::debug!(%error, name, group = %directory.display(), "no such controller");
        }
    }
}
