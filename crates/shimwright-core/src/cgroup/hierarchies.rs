//! The cgroup hierarchies of this machine, and where a container's groups are in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::Cgroups;
use super::path::GroupPath;
use super::{v1, v2};

/// Where a hierarchy is mounted.
#[derive(Clone, Debug)]
struct Mount {
    /// The mount's own root inside the hierarchy.
    root: String,
    point: PathBuf,
}

impl Mount {
    /// The directory of a group by its path from the top of the hierarchy.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let below = if self.root == "/" {
            path
        } else {
            path.strip_prefix(self.root.as_str())?
        };
        Some(self.point.join(below.trim_start_matches('/')))
    }
}

/// The mounted hierarchies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hierarchies {
    /// By controller.
    v1: BTreeMap<String, Mount>,
    v2: Option<Mount>,
}

impl Hierarchies {
    /// Reads the mount table of this process.
    pub(crate) fn discover() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string(
            "/proc/self/mountinfo",
        )?))
    }

    /// Parses `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
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
            let mount = Mount {
                root: root.to_owned(),
                point: PathBuf::from(point),
            };
            match kind {
                "cgroup2" => {
                    found.v2.get_or_insert(mount);
                }
                "cgroup" => {
                    for option in options.split(',') {
                        let entry = found.v1.entry(option.to_owned());
                        entry.or_insert_with(|| mount.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether resources are controlled by v1 hierarchies.
    pub(crate) fn is_legacy(&self) -> bool {
        self.v1.contains_key("devices") && self.v1.contains_key("memory")
    }

    /// Where the v2 hierarchy is mounted.
    pub(crate) fn unified_point(&self) -> Option<&Path> {
        self.v2.as_ref().map(|mount| mount.point.as_path())
    }

    /// For each place where v1 hierarchies are mounted, the group there of a process that has joined
    /// `cgroups`, and whether it is one of these. Of the others, it is in the group of this process.
    pub(crate) fn seen_by(&self, cgroups: &Cgroups) -> io::Result<Vec<(PathBuf, PathBuf, bool)>> {
        Ok(self.seen(cgroups, &self.own()?))
    }

    fn seen(&self, cgroups: &Cgroups, own: &Cgroups) -> Vec<(PathBuf, PathBuf, bool)> {
        let mut seen = BTreeMap::new();
        for (controller, mount) in &self.v1 {
            let of_container = cgroups.controller(controller).map(|group| (group, true));
            let of_this = own.controller(controller).map(|group| (group, false));
            if let Some((group, is_own)) = of_container.or(of_this) {
                let found = seen.entry(&mount.point).or_insert((group, is_own));
                if is_own && !found.1 {
                    *found = (group, is_own);
                }
            }
        }
        let owned = |(point, (group, is_own)): (&PathBuf, (&Path, bool))| {
            (point.clone(), group.to_owned(), is_own)
        };
        seen.into_iter().map(owned).collect()
    }

    /// The v2 hierarchy.
    pub(crate) fn unified(&self) -> Option<v2::Hierarchy<'_>> {
        let mount = self.v2.as_ref()?;
        Some(v2::Hierarchy(&mount.point))
    }

    /// The groups a process is in, from its `/proc/PID/cgroup` (`cgroups(7)`).
    fn groups(&self, membership: &str) -> Cgroups {
        let mut found = Cgroups::default();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            if controllers.is_empty() {
                let directory = self.v2.as_ref().and_then(|mount| mount.find(path));
                found.v2 = directory.map(v2::Group).or(found.v2);
                continue;
            }
            for controller in controllers.split(',') {
                let mount = self.v1.get(controller);
                if let Some(directory) = mount.and_then(|mount| mount.find(path)) {
                    found.v1.0.insert(controller.to_owned(), directory);
                }
            }
        }
        found
    }

    /// The groups of this process itself.
    fn own(&self) -> io::Result<Cgroups> {
        Ok(self.groups(&std::fs::read_to_string("/proc/self/cgroup")?))
    }

    /// The groups at a path that `wanted` accepts the v1 controllers of.
    fn select(&self, path: &GroupPath, wanted: impl Fn(&str) -> bool) -> Cgroups {
        let groups = self.v1.iter().filter(|(name, _)| wanted(name));
        Cgroups {
            v1: v1::Groups(
                groups
                    .map(|(name, mount)| (name.clone(), path.at(&mount.point)))
                    .collect(),
            ),
            v2: None,
        }
    }

    fn select_unified(&self, path: &GroupPath) -> Option<v2::Group> {
        let mount = self.v2.as_ref()?;
        Some(v2::Group(path.at(&mount.point)))
    }

    /// The groups at a path in every hierarchy, whether they exist or not, without those that this
    /// process is in.
    pub(crate) fn at(&self, path: &GroupPath) -> io::Result<Cgroups> {
        let groups = Cgroups {
            v2: self.select_unified(path),
            ..self.select(path, |_| true)
        };
        Ok(groups.without(&self.own()?))
    }

    /// The groups a container at this path of its spec is going to have: one in each v1 hierarchy
    /// that controls something, or one in the v2 hierarchy.
    pub(crate) fn planned(&self, path: &GroupPath) -> Cgroups {
        self.for_controllers(path, &v1::CONTROLLERS)
    }

    /// The groups at this path for these controllers of v1, or in the v2 hierarchy.
    pub(crate) fn for_controllers(&self, path: &GroupPath, controllers: &[&str]) -> Cgroups {
        if self.is_legacy() {
            return self.select(path, |name| controllers.contains(&name));
        }
        Cgroups {
            v2: self.select_unified(path),
            ..Cgroups::default()
        }
    }

    /// Moves a process into the groups at a path, in each hierarchy that has one there.
    ///
    /// # Errors
    ///
    /// `NotFound` if none has.
    pub(crate) fn admit(&self, path: &GroupPath, pid: u32) -> io::Result<()> {
        let mounts = self.v1.values().chain(&self.v2);
        let directories = mounts.map(|mount| path.at(&mount.point));
        // Controllers that are mounted together have one directory.
        let directories: BTreeSet<_> = directories.filter(|directory| directory.is_dir()).collect();
        if directories.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        directories.iter().try_for_each(|directory| {
            std::fs::write(directory.join("cgroup.procs"), pid.to_string())
        })
    }

    /// Makes groups, ready to be joined.
    pub(crate) fn make(&self, cgroups: &Cgroups) -> io::Result<()> {
        let cpuset: Option<&Path> = self.v1.get("cpuset").map(|mount| mount.point.as_path());
        cgroups.v1.make(cpuset)?;
        match (&cgroups.v2, self.unified()) {
            (Some(group), Some(unified)) if !self.is_legacy() => unified.make(group),
            (Some(group), _) => super::make(group.directory()),
            (None, _) => Ok(()),
        }
    }

    /// The groups made for the container whose first process is `pid`: all that this process is not
    /// in itself.
    pub(crate) fn of_container(&self, pid: Pid) -> io::Result<Cgroups> {
        let theirs = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
        Ok(self.groups(&theirs).without(&self.own()?))
    }
}

/// Reads files that say which groups there are, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(mountinfo: &str, membership: &str) {
    Hierarchies::parse(mountinfo).groups(membership);
}

#[cfg(test)]
mod tests {
    use super::super::Version;
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
            .groups("3:cpu:/a/b\n4:memory:/a/b\n8:pids:/docker/1/a/b\n0::/\n");
        for (controller, directory) in [
            ("cpu", "/sys/fs/cgroup/cpu/a/b"),
            ("memory", "/sys/fs/cgroup/memory/a/b"),
            ("pids", "/sys/fs/cgroup/pids/a/b"),
        ] {
            assert_eq!(found.controller(controller), Some(Path::new(directory)));
        }
        let unified = found.v2.as_ref().map(v2::Group::directory);
        assert_eq!(unified, Some(Path::new("/sys/fs/cgroup/unified/")));
        assert!(matches!(found.version(), Version::V1(_)));
    }

    #[test]
    fn a_container_sees_its_own_groups_and_those_it_shares() {
        let hierarchies = Hierarchies::parse(HYBRID);
        let own = hierarchies.groups("3:cpu:/\n4:memory:/shim\n");
        let container = hierarchies.groups("3:cpu:/c\n").without(&own);
        let seen = hierarchies.seen(&container, &own);
        let path = |path: &str| PathBuf::from(path);
        let (cpu, memory) = (path("/sys/fs/cgroup/cpu"), path("/sys/fs/cgroup/memory"));
        let expected = [
            (cpu.clone(), cpu.join("c"), true),
            (memory.clone(), memory.join("shim"), false),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_group_the_shim_is_in_is_never_the_containers() {
        let hierarchies = Hierarchies::parse(HYBRID);
        let own = hierarchies.groups("3:cpu:/\n4:memory:/\n0::/\n");
        let cgroups = hierarchies
            .groups("3:cpu:/c\n4:memory:/\n0::/\n")
            .without(&own);
        assert_eq!(
            cgroups.controller("cpu"),
            Some(Path::new("/sys/fs/cgroup/cpu/c"))
        );
        assert_eq!(cgroups.controller("memory"), None);
        assert_eq!(cgroups.v2, None);
    }
}
