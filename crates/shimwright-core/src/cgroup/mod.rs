//! The cgroups of one container: their paths, their processes, killing and removing them.
//!
//! Those that systemd has made (`cgroupsPath` as `slice:prefix:name`) are found from the kernel's record
//! of the container's first process, so that cleanup does not depend on the spelling of the path.
//!
//! What differs between the versions is behind [`Version`], in `v1` and `v2` of each topic.

pub(crate) mod devices;
mod file;
pub(crate) mod freezer;
mod hierarchies;
pub(crate) mod limits;
mod notice;
pub(crate) mod oom;
mod path;
pub(crate) mod stats;
mod tree;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use file::Table;
pub(crate) use hierarchies::Hierarchies;
pub(crate) use path::GroupPath;

/// How long to wait for killed processes before looking again whether they are there.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// The cgroups of one container.
///
/// A hybrid machine controls resources with v1, but systemd makes groups in its v2 hierarchy too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Recorded", into = "Recorded")]
pub(crate) struct Cgroups {
    v1: v1::Groups,
    v2: Option<v2::Group>,
}

/// The version that controls a container's resources.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Version<'a> {
    V1(&'a v1::Groups),
    V2(&'a v2::Group),
}

/// How the record on disk has them: one list, in which the v2 group has no name.
#[derive(Serialize, Deserialize)]
struct Recorded {
    directories: BTreeMap<String, PathBuf>,
}

impl From<Recorded> for Cgroups {
    fn from(mut recorded: Recorded) -> Self {
        let v2 = recorded.directories.remove("").map(v2::Group);
        Self {
            v1: v1::Groups(recorded.directories),
            v2,
        }
    }
}

impl From<Cgroups> for Recorded {
    fn from(cgroups: Cgroups) -> Self {
        let mut directories = cgroups.v1.0;
        directories.extend(cgroups.v2.map(|group| (String::new(), group.0)));
        Self { directories }
    }
}

impl Cgroups {
    /// Those that `others` does not have.
    fn without(mut self, others: &Self) -> Self {
        let other = &others.v1.0;
        self.v1.0.retain(|name, path| other.get(name) != Some(path));
        self.v2 = self.v2.filter(|group| others.v2.as_ref() != Some(group));
        self
    }

    /// The groups of a test: one directory for every controller of v1.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn everywhere(directory: &Path) -> Self {
        let named = |name: &&str| ((*name).to_owned(), directory.to_owned());
        Self {
            v1: v1::Groups(v1::CONTROLLERS.iter().map(named).collect()),
            v2: None,
        }
    }

    /// The groups of a test: one directory for one controller, or for v2 without a name.
    #[cfg(test)]
    pub(crate) fn of_one(name: &str, directory: &Path) -> Self {
        let directories = [(name.to_owned(), directory.to_owned())].into();
        Recorded { directories }.into()
    }

    /// The version that controls the container's resources.
    pub(crate) fn version(&self) -> Version<'_> {
        match &self.v2 {
            Some(group) if !self.v1.control_something() => Version::V2(group),
            _ => Version::V1(&self.v1),
        }
    }

    /// The directory of a v1 controller.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        self.v1.directory(name)
    }

    /// The directory of the v2 group.
    pub(crate) fn unified_directory(&self) -> Option<&Path> {
        self.v2.as_ref().map(v2::Group::directory)
    }

    fn directories(&self) -> BTreeSet<&Path> {
        let mut directories = self.v1.directories();
        directories.extend(self.v2.as_ref().map(v2::Group::directory));
        directories
    }

    /// Moves this process, which has a single thread, into every group.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.v1.join()?;
        self.v2.as_ref().map_or(Ok(()), v2::Group::join)
    }

    /// Moves this process, which has a single thread, into every group but the v2 group that controls the
    /// container's resources: it has been made in that.
    pub(crate) fn join_the_rest(&self) -> io::Result<()> {
        self.v1.join()?;
        match (&self.v2, self.version()) {
            (Some(group), Version::V1(_)) => group.join(),
            _ => Ok(()),
        }
    }

    /// Whether there are such groups or may be.
    ///
    /// # Errors
    ///
    /// If a path is too long, or something on its way is no directory.
    pub(crate) fn can_be(&self) -> io::Result<()> {
        let mut directories = self.directories().into_iter();
        directories.try_for_each(|directory| directory.try_exists().map(drop))
    }

    /// Every process in the container's cgroups, also in groups below them.
    pub(crate) fn processes(&self) -> io::Result<Vec<Pid>> {
        let directory = match self.version() {
            Version::V1(groups) => groups.with_all_processes(),
            Version::V2(group) => Some(group.directory()),
        };
        let mut found = Vec::new();
        if let Some(directory) = directory {
            tree::collect_processes(directory, &mut found)?;
        }
        Ok(found)
    }

    /// A handle on every process that has not ended meanwhile.
    pub(crate) fn handles(&self) -> io::Result<Vec<(Pid, OwnedFd)>> {
        Ok(open(self.processes()?))
    }

    /// Kills every process and waits until the last one is gone.
    ///
    /// # Errors
    ///
    /// `TimedOut` if a process is still there after `bound`.
    pub(crate) fn kill_all(&self, bound: Duration) -> io::Result<()> {
        let deadline = Instant::now() + bound;
        loop {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            // They may fork faster than they are killed.
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if let Version::V2(group) = self.version() {
                let _ = group.kill();
            }
            // A frozen process takes no signal on v1 until it is thawed.
            self.thaw();
            let handles = open(processes);
            for (_, handle) in &handles {
                // It may have ended meanwhile, which is what we want.
                let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
            }
            // The first process of a pid namespace leaves its group before it is reported to have
            // ended, which takes until others of the namespace have been reaped.
            let look = deadline.min(Instant::now() + LOOK);
            for (_, handle) in &handles {
                crate::sys::fd::becomes_readable(handle, look)?;
            }
        }
    }

    /// Thaws the container, frozen or not, as far as there is something to thaw.
    pub(crate) fn thaw(&self) {
        if let Some(freezer) = freezer::Freezer::of(self) {
            let _ = freezer.thaw();
        }
    }

    /// Removes the directories; those that are gone already count as removed.
    ///
    /// # Errors
    ///
    /// The first directory that could not be removed within `bound`.
    pub(crate) fn remove(&self, bound: Duration) -> io::Result<()> {
        let deadline = Instant::now() + bound;
        let mut directories = self.directories().into_iter();
        directories.try_for_each(|directory| tree::remove_tree(directory, deadline))
    }

    /// Removes those that are empty, without waiting.
    pub(crate) fn remove_empty(&self) {
        for directory in self.directories() {
            let _ = std::fs::remove_dir(directory);
        }
    }

    /// Those whose directories are there.
    pub(crate) fn that_exist(&self) -> Self {
        let mut cgroups = self.clone();
        cgroups.v1.0.retain(|_, directory| directory.is_dir());
        cgroups.v2 = cgroups.v2.filter(|group| group.directory().is_dir());
        cgroups
    }

    /// The names, which begin with `prefix`, of the groups directly below.
    pub(crate) fn below(&self, prefix: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for directory in self.directories() {
            let found = tree::subdirectories(directory).unwrap_or_default();
            names.extend(found.iter().filter_map(|found| {
                let name = found.file_name()?.to_str()?;
                name.starts_with(prefix).then(|| name.to_owned())
            }));
        }
        names
    }

    /// Whether there are any of these directories.
    pub(crate) fn exist(&self) -> bool {
        self.directories().into_iter().any(Path::is_dir)
    }

    /// A file of the group that has this controller, by its name of v1 or of v2.
    fn file(&self, controller: &str, v1: &'static str, v2: &'static str) -> Option<File<'_>> {
        let (directory, name) = match self.version() {
            Version::V1(groups) => (groups.directory(controller)?, v1),
            Version::V2(group) => (group.directory(), v2),
        };
        Some(File { directory, name })
    }

    /// Writes to a file of the group that has this controller, by its name of v1 or of v2.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such controller or file.
    pub(crate) fn set(
        &self,
        controller: &str,
        v1: &'static str,
        v2: &'static str,
        value: &str,
    ) -> io::Result<()> {
        let file = self.file(controller, v1, v2);
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        file::write(&file.directory.join(file.name), value)
    }

    /// How many processes were killed because there was no memory left.
    pub(crate) fn killed_for_memory(&self) -> u64 {
        let file = self.file("memory", oom::V1, oom::V2);
        file.map_or(0, |file| {
            Table::read(file.directory, file.name).get("oom_kill")
        })
    }
}

/// Opens each process that is still there.
fn open(processes: Vec<Pid>) -> Vec<(Pid, OwnedFd)> {
    let open = |pid| {
        Some((
            pid,
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?,
        ))
    };
    processes.into_iter().filter_map(open).collect()
}

/// A file of a cgroup.
#[derive(Clone, Copy, Debug)]
struct File<'a> {
    directory: &'a Path,
    name: &'static str,
}

/// Makes a group's directory, and those above it if need be.
fn make(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(directory),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Reads files that say which groups there are, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(mountinfo: &str, membership: &str) {
    hierarchies::fuzz(mountinfo, membership);
    Table::parse(membership);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_can_be_unless_its_path_is_too_long() {
        let can_be = |path: &str| Cgroups::of_one("pids", Path::new(path)).can_be();
        can_be("/nowhere/at/all").unwrap();
        let long = can_be(&format!("/nowhere/{}", "x/".repeat(2100))).unwrap_err();
        assert_eq!(long.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn a_group_that_is_gone_has_no_processes_and_is_removed() {
        for name in ["pids", ""] {
            let cgroups = Cgroups::of_one(name, Path::new("/nowhere/at/all"));
            assert!(cgroups.processes().unwrap().is_empty());
            cgroups.kill_all(Duration::ZERO).unwrap();
            cgroups.remove(Duration::ZERO).unwrap();
        }
    }

    #[test]
    fn the_record_has_one_list() {
        let text = r#"{"directories":{"":"/c/unified/a","pids":"/c/pids/a"}}"#;
        let cgroups: Cgroups = serde_json::from_str(text).unwrap();
        assert!(cgroups.v2.is_some() && cgroups.controller("pids").is_some());
        assert_eq!(serde_json::to_string(&cgroups).unwrap(), text);
    }
}
