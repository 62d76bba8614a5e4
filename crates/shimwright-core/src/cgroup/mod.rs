//! The control groups of one container: which they are, what runs in them, ending and removing them.
//!
//! libcontainer makes them. This module finds them again from the kernel's own account of the
//! container's first process, so that cleaning up depends neither on how the path was spelled in
//! the spec (`cgroupsPath`, also systemd's `slice:prefix:name`) nor on a library's state file.

pub(crate) mod devices;
pub(crate) mod freezer;
pub(crate) mod limits;
mod notice;
pub(crate) mod oom;
pub(crate) mod stats;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// Name under which the version 2 hierarchy is kept, which has no controller list.
const UNIFIED: &str = "";

/// The version 1 controllers a container gets a group of (OCI runtime spec, "Control groups").
const CONTROLLERS: [&str; 12] = [
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

/// The version 2 controllers that limits of the spec are kept to with.
const UNIFIED_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// The mounted hierarchies of this machine: controller name to mount point.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hierarchies {
    /// The mount's own root inside the hierarchy, and where it is mounted.
    mounts: BTreeMap<String, (String, PathBuf)>,
}

impl Hierarchies {
    /// Reads the mount table of this process.
    pub(crate) fn discover() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string(
            "/proc/self/mountinfo",
        )?))
    }

    /// The names of the directories in which hierarchies of version 1 are mounted, such as `cpu,cpuacct`.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let points = self.mounts.iter().filter(|(name, _)| !name.is_empty());
        points
            .filter_map(|(_, (_, point))| Some(point.file_name()?.to_str()?.to_owned()))
            .collect()
    }

    /// Parses `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
    fn parse(mountinfo: &str) -> Self {
        let mut mounts = BTreeMap::new();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let mut before = before.split(' ').skip(3);
            let (Some(root), Some(point)) = (before.next(), before.next()) else {
                continue;
            };
            let mut after = after.split(' ');
            let (Some(kind), Some(options)) = (after.next(), after.nth(1)) else {
                continue;
            };
            let place = (root.to_owned(), PathBuf::from(point));
            match kind {
                "cgroup2" => {
                    mounts.entry(UNIFIED.to_owned()).or_insert(place);
                }
                "cgroup" => {
                    for option in options.split(',') {
                        mounts
                            .entry(option.to_owned())
                            .or_insert_with(|| place.clone());
                    }
                }
                _ => {}
            }
        }
        Self { mounts }
    }

    /// The directory of each hierarchy a process is in, from its `/proc/PID/cgroup`
    /// (`cgroups(7)`).
    fn directories(&self, membership: &str) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            for controller in controllers.split(',') {
                let Some((root, point)) = self.mounts.get(controller) else {
                    continue;
                };
                let below = if root == "/" {
                    Some(path)
                } else {
                    path.strip_prefix(root.as_str())
                };
                if let Some(below) = below {
                    let directory = point.join(below.trim_start_matches('/'));
                    found.insert(controller.to_owned(), directory);
                }
            }
        }
        found
    }

    /// The control groups at a path of a spec, as far as they exist; none for a path of systemd's
    /// form, whose groups systemd removes when they are empty.
    pub(crate) fn at(&self, path: &Path) -> io::Result<Cgroups> {
        let mut cgroups = self.whether_there_or_not(path)?;
        cgroups
            .directories
            .retain(|_, directory| directory.exists());
        Ok(cgroups)
    }

    /// The same, also those that do not exist.
    pub(crate) fn whether_there_or_not(&self, path: &Path) -> io::Result<Cgroups> {
        let own = self.directories(&std::fs::read_to_string("/proc/self/cgroup")?);
        let below = path.strip_prefix("/").unwrap_or(path);
        let is_plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if below.as_os_str().is_empty() || !is_plain || path.to_string_lossy().contains(':') {
            return Ok(Cgroups::default());
        }
        let theirs = self
            .mounts
            .iter()
            .map(|(name, (_, point))| (name.clone(), point.join(below)))
            .collect();
        Ok(Cgroups::without(theirs, &own))
    }

    /// Moves a process into the control groups at a path, in each hierarchy that has one there.
    ///
    /// # Errors
    ///
    /// `NotFound` if none has.
    pub(crate) fn admit(&self, path: &Path, pid: u32) -> io::Result<()> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let is_plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let points = self.mounts.values().map(|(_, point)| point.join(below));
        // Controllers that are mounted together have one directory.
        let directories: BTreeSet<_> = points.filter(|directory| directory.is_dir()).collect();
        if !is_plain || directories.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        directories.iter().try_for_each(|directory| {
            std::fs::write(directory.join("cgroup.procs"), pid.to_string())
        })
    }

    /// Whether resources are controlled by version 1 hierarchies.
    pub(crate) fn is_legacy(&self) -> bool {
        self.mounts.contains_key("devices") && self.mounts.contains_key("memory")
    }

    /// The control groups a container at this path of its spec is going to have: one in each
    /// version 1 hierarchy that controls something.
    pub(crate) fn planned(&self, path: &Path) -> Cgroups {
        let below = path.strip_prefix("/").unwrap_or(path);
        let directories = self
            .mounts
            .iter()
            .filter(|(name, _)| CONTROLLERS.contains(&name.as_str()))
            .map(|(name, (_, point))| (name.clone(), point.join(below)))
            .collect();
        Cgroups { directories }
    }

    /// The groups at this path for these controllers of version 1, or in the version 2 hierarchy.
    pub(crate) fn for_controllers(&self, path: &Path, controllers: &[&str]) -> Cgroups {
        let below = path.strip_prefix("/").unwrap_or(path);
        let is_legacy = self.is_legacy();
        let directories = self
            .mounts
            .iter()
            .filter(|(name, _)| match name.as_str() {
                UNIFIED => !is_legacy,
                name => is_legacy && controllers.contains(&name),
            })
            .map(|(name, (_, point))| (name.clone(), point.join(below)))
            .collect();
        Cgroups { directories }
    }

    /// Has the groups above `directory`, which is in the version 2 hierarchy, hand on these
    /// controllers, as far as they have them: without one its limit cannot be set, which is
    /// noticed then.
    pub(crate) fn hand_on(&self, directory: &Path, controllers: &[&str]) {
        let Some((_, top)) = self.mounts.get(UNIFIED) else {
            return;
        };
        let mut above: Vec<_> = directory.ancestors().skip(1).collect();
        above.retain(|group| group.starts_with(top));
        for group in above.into_iter().rev() {
            for controller in controllers {
                let _ = write(
                    &group.join("cgroup.subtree_control"),
                    &format!("+{controller}"),
                );
            }
        }
    }

    /// Makes planned control groups, ready to be joined.
    pub(crate) fn make(&self, cgroups: &Cgroups) -> io::Result<()> {
        for directory in cgroups.directories.values() {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(directory)?;
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        if let (Some(directory), Some((_, top))) =
            (cgroups.controller("cpuset"), self.mounts.get("cpuset"))
        {
            inherit_cpuset(directory, top)?;
        }
        Ok(())
    }

    /// Makes a group of the version 2 hierarchy and those above it, which get the controllers of
    /// the machine as far as they can have them, as libcgroups does for a group it makes itself.
    pub(crate) fn make_unified(&self, directory: &Path) -> io::Result<()> {
        let (_, top) = self.mounts.get(UNIFIED).ok_or(io::ErrorKind::NotFound)?;
        let below = directory.strip_prefix(top).map_err(io::Error::other)?;
        let controllers = std::fs::read_to_string(top.join("cgroup.controllers"))?;
        let controllers: Vec<_> = controllers
            .split_whitespace()
            .filter(|name| UNIFIED_CONTROLLERS.contains(name))
            .collect();
        let mut current = top.clone();
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

    /// The control groups made for the container whose first process is `pid`: all that this
    /// process is not in itself.
    pub(crate) fn of_container(&self, pid: Pid) -> io::Result<Cgroups> {
        let of = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let own = self.directories(&of("self")?);
        let theirs = self.directories(&of(&pid.as_raw_nonzero().to_string())?);
        Ok(Cgroups::without(theirs, &own))
    }
}

/// How long to wait for killed processes before looking again whether they are there.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// The directories of one container's control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroups {
    directories: BTreeMap<String, PathBuf>,
}

impl Cgroups {
    fn without(theirs: BTreeMap<String, PathBuf>, own: &BTreeMap<String, PathBuf>) -> Self {
        let directories = theirs
            .into_iter()
            .filter(|(name, path)| own.get(name) != Some(path))
            .collect();
        Self { directories }
    }

    /// The groups of a test: one directory for every controller of version 1.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn everywhere(directory: &Path) -> Self {
        let directories = CONTROLLERS.iter();
        let directories = directories.map(|name| ((*name).to_owned(), directory.to_owned()));
        Self {
            directories: directories.collect(),
        }
    }

    /// The groups of a test: one directory for one controller.
    #[cfg(test)]
    pub(crate) fn of_one(name: &str, directory: &Path) -> Self {
        Self {
            directories: [(name.to_owned(), directory.to_owned())].into(),
        }
    }

    /// The directory of a version 1 controller.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        self.directories.get(name).map(PathBuf::as_path)
    }

    /// The directory in the version 2 hierarchy, if resources are controlled there. On a hybrid
    /// machine they are not, although systemd makes groups there too.
    pub(crate) fn unified(&self) -> Option<&Path> {
        let is_legacy = CONTROLLERS
            .iter()
            .any(|name| self.controller(name).is_some());
        self.controller(UNIFIED).filter(|_| !is_legacy)
    }

    /// Moves this process, which has a single thread, into every group.
    ///
    /// On version 1, a thread that moves itself, named as `0` in `tasks`, can neither end nor
    /// execute meanwhile, so the kernel does without the lock that `cgroup.procs` takes for that,
    /// and without waiting for an RCU grace period (`cgroup_procs_write_start` in
    /// `kernel/cgroup/cgroup.c`). Version 2 moves whole processes only.
    pub(crate) fn join(&self) -> io::Result<()> {
        self.directories.iter().try_for_each(|(name, directory)| {
            let file = if name == UNIFIED {
                "cgroup.procs"
            } else {
                "tasks"
            };
            std::fs::OpenOptions::new()
                .write(true)
                .open(directory.join(file))
                .and_then(|mut tasks| tasks.write_all(b"0"))
        })
    }

    /// Whether there are such groups or may be.
    ///
    /// # Errors
    ///
    /// If a path is too long, or something on its way is no directory.
    pub(crate) fn can_be(&self) -> io::Result<()> {
        let mut directories = self.directories.values();
        directories.try_for_each(|directory| directory.try_exists().map(drop))
    }

    /// Every process in the container's control groups, also in groups below them.
    pub(crate) fn processes(&self) -> io::Result<Vec<Pid>> {
        // One hierarchy tells all: processes join each of them together.
        let preferred = ["pids", "memory", "devices", "freezer", UNIFIED];
        let directory = preferred
            .iter()
            .find_map(|name| self.controller(name))
            .or_else(|| self.directories.values().next().map(PathBuf::as_path));
        let mut found = Vec::new();
        if let Some(directory) = directory {
            collect_processes(directory, &mut found)?;
        }
        Ok(found)
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
            if let Some(unified) = self.unified() {
                // Kills all at once, also what is being forked; kernels before 5.14 have no such file.
                let _ = std::fs::write(unified.join("cgroup.kill"), "1");
            }
            // A frozen process takes no signal on version 1 until it is thawed.
            self.thaw();
            let handles: Vec<_> = processes
                .into_iter()
                .filter_map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
                .collect();
            for handle in &handles {
                // It may have ended meanwhile, which is what we want.
                let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
            }
            // The first process of a pid namespace leaves its group before it is reported to have
            // ended, which takes until others of the namespace have been reaped.
            let look = deadline.min(Instant::now() + LOOK);
            for handle in &handles {
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
        self.directories
            .values()
            .try_for_each(|directory| remove_tree(directory, deadline))
    }
}

impl Cgroups {
    /// Removes those that are empty, without waiting.
    pub(crate) fn remove_empty(&self) {
        for directory in self.directories.values() {
            let _ = std::fs::remove_dir(directory);
        }
    }

    /// Those whose directories are there.
    pub(crate) fn that_exist(&self) -> Self {
        let mut cgroups = self.clone();
        cgroups
            .directories
            .retain(|_, directory| directory.is_dir());
        cgroups
    }

    /// The names, which begin with `prefix`, of the groups directly below.
    pub(crate) fn below(&self, prefix: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for directory in self.directories.values() {
            let found = subdirectories(directory).unwrap_or_default();
            names.extend(found.iter().filter_map(|found| {
                let name = found.file_name()?.to_str()?;
                name.starts_with(prefix).then(|| name.to_owned())
            }));
        }
        names
    }

    /// Whether there are any of these directories.
    pub(crate) fn exist(&self) -> bool {
        self.directories
            .values()
            .any(|directory| directory.is_dir())
    }

    /// Writes to a file of the group of this controller, by its name of version 1 or of 2.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such controller or file.
    pub(crate) fn set(&self, controller: &str, v1: &str, v2: &str, value: &str) -> io::Result<()> {
        let (directory, file) = match (self.controller(controller), self.unified()) {
            (Some(directory), _) => (directory, v1),
            (None, Some(directory)) => (directory, v2),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        write(&directory.join(file), value)
    }

    /// How many processes were killed because there was no memory left.
    pub(crate) fn killed_for_memory(&self) -> u64 {
        let (directory, file) = match (self.controller("memory"), self.unified()) {
            (Some(directory), _) => (directory, "memory.oom_control"),
            (None, Some(directory)) => (directory, "memory.events"),
            (None, None) => return 0,
        };
        Table::read(directory, file).get("oom_kill")
    }
}

/// Opens a file of a control group, which exists or is not to be had.
fn open_to_write(file: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file)
}

/// Writes to a file of a control group, all at once as each of them demands.
fn write(file: &Path, value: &str) -> io::Result<()> {
    open_to_write(file)?.write_all(value.as_bytes())
}

/// A file of lines `name value`.
#[derive(Debug)]
pub(crate) struct Table(HashMap<String, u64>);

impl Table {
    /// Reads a file; one that cannot be read is empty.
    pub(crate) fn read(directory: &Path, file: &str) -> Self {
        Self::parse(&std::fs::read_to_string(directory.join(file)).unwrap_or_default())
    }

    /// Lines of another form are left out.
    pub(crate) fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
                .collect(),
        )
    }

    /// The value of a name, or 0.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
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

/// Lets the groups below one have controllers. One that cannot be had fails the limit that needs it.
fn enable_below(directory: &Path, controllers: &[&str]) {
    let file = directory.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    for name in controllers {
        if enabled.split_whitespace().all(|enabled| enabled != *name)
            && let Err(error) = write(&file, &format!("+{name}"))
        {
            tracing::debug!(%error, name, group = %directory.display(), "no such controller");
        }
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<Pid>) -> io::Result<()> {
    let text = match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => text,
        // ENODEV: removed between opening and reading. One whose path is too long never was.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::ENAMETOOLONG)
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    found.extend(
        text.lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?)),
    );
    for below in subdirectories(directory)? {
        collect_processes(&below, found)?;
    }
    Ok(())
}

/// The directories in one; none if it has just been removed, perhaps by another cleaner.
fn subdirectories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found,
    }
}

fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let error = match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.raw_os_error() {
            // One whose path is too long never was.
            Some(libc::ENOENT | libc::ENAMETOOLONG) => return Ok(()),
            Some(libc::EBUSY) if Instant::now() < deadline => {
                for below in subdirectories(directory).unwrap_or_default() {
                    remove_tree(&below, deadline)?;
                }
                // A process that has been reaped leaves its group a moment later, and version 1
                // has no event for that.
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => return Err(error),
        }
    }
}

/// Reads files that say which groups there are, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(mountinfo: &str, membership: &str) {
    let hierarchies = Hierarchies::parse(mountinfo);
    hierarchies.directories(membership);
    Table::parse(membership);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 22 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 22 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
32 22 0:28 /docker/1 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 22 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 22 0:30 / /proc rw - proc proc rw
";

    #[test]
    fn a_hybrid_machine_has_controllers_and_a_unified_hierarchy() {
        let found = Hierarchies::parse(HYBRID)
            .directories("3:cpu:/a/b\n4:memory:/a/b\n8:pids:/docker/1/a/b\n0::/\n");
        let expected = [
            ("", "/sys/fs/cgroup/unified/"),
            ("cpu", "/sys/fs/cgroup/cpu/a/b"),
            ("memory", "/sys/fs/cgroup/memory/a/b"),
            ("pids", "/sys/fs/cgroup/pids/a/b"),
        ];
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(n, p)| ((*n).to_owned(), PathBuf::from(p)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_group_the_shim_is_in_is_never_the_containers() {
        let hierarchies = Hierarchies::parse(HYBRID);
        let own = hierarchies.directories("3:cpu:/\n4:memory:/\n0::/\n");
        let theirs = hierarchies.directories("3:cpu:/c\n4:memory:/\n0::/\n");
        let cgroups = Cgroups::without(theirs, &own);
        assert_eq!(
            cgroups.controller("cpu"),
            Some(Path::new("/sys/fs/cgroup/cpu/c"))
        );
        assert_eq!(cgroups.controller("memory"), None);
        assert_eq!(cgroups.unified(), None);
    }

    #[test]
    fn a_group_can_be_unless_its_path_is_too_long() {
        let can_be = |path: &str| Cgroups::of_one("pids", Path::new(path)).can_be();
        can_be("/nowhere/at/all").unwrap();
        let long = can_be(&format!("/nowhere/{}", "x/".repeat(2100))).unwrap_err();
        assert_eq!(long.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn a_group_that_is_gone_has_no_processes_and_is_removed() {
        let cgroups = Cgroups {
            directories: [("pids".to_owned(), PathBuf::from("/nowhere/at/all"))].into(),
        };
        assert!(cgroups.processes().unwrap().is_empty());
        cgroups.kill_all(Duration::ZERO).unwrap();
        cgroups.remove(Duration::ZERO).unwrap();
    }
}
