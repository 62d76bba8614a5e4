//! What shims leave on a machine: processes, mounts, cgroups and sockets.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

/// What belongs to one containerd and its shims at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Live processes of the shim's executable, and every process of a container.
    pub processes: BTreeSet<Process>,
    /// Mount points below the containerd's directory.
    pub mounts: Vec<PathBuf>,
    /// Control groups below the namespace's, in every hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Sockets of shims.
    pub sockets: Vec<PathBuf>,
}

/// A live process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its command line.
    pub command: String,
    /// Whether it belongs to a container.
    pub contained: bool,
}

impl Process {
    /// Kills it.
    pub fn kill(&self) {
        // It fails if the process has just ended.
        let _ = Pid::from_raw(self.pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
    }
}

impl Snapshot {
    pub(crate) fn take(
        shim: &Path,
        namespace: &str,
        directory: &Path,
        sockets: &[PathBuf],
    ) -> Self {
        let exists = |path: &&PathBuf| path.symlink_metadata().is_ok();
        Self {
            processes: processes(shim, namespace),
            mounts: mounts(directory),
            cgroups: cgroups(namespace),
            sockets: sockets.iter().filter(exists).cloned().collect(),
        }
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The processes outside of any container: the shims.
    pub fn shims(&self) -> Vec<i32> {
        self.processes
            .iter()
            .filter(|process| !process.contained)
            .map(|p| p.pid)
            .collect()
    }
}

/// The cgroups of the namespace itself, which shims create but containerd removes.
pub(crate) fn namespace_cgroups(namespace: &str) -> Vec<PathBuf> {
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = mounted.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        kind.starts_with("cgroup")
            .then(|| Path::new(path).join(namespace))
    });
    let found: BTreeSet<PathBuf> = hierarchies.filter(|path| path.is_dir()).collect();
    found.into_iter().collect()
}

fn processes(shim: &Path, namespace: &str) -> BTreeSet<Process> {
    let below = format!("/{namespace}/");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let directory = entry.path();
        // That of a zombie cannot be read: it is gone, and its parent will notice.
        let Ok(executable) = fs::read_link(directory.join("exe")) else {
            continue;
        };
        let command = fs::read(directory.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = command
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        let groups = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
        let contained = groups.lines().any(|line| line.contains(&below));
        let ours = executable == shim && words.iter().any(|word| word == namespace);
        if contained || ours {
            found.insert(Process {
                pid,
                command: words.join(" "),
                contained,
            });
        }
    }
    found
}

fn mounts(directory: &Path) -> Vec<PathBuf> {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounted
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    points
        .filter(|point| point.starts_with(directory))
        .collect()
}

fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut parents = namespace_cgroups(namespace);
    while let Some(parent) = parents.pop() {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
                parents.push(entry.path());
            }
        }
    }
    found
}
