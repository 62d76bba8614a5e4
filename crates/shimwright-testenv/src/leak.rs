//! What a containerd of ours and its shims may have left behind, and how to get rid of it.
//!
//! This process adopts every orphan below it, as init does: nothing that was started here can
//! leave the tree of our descendants, whatever its name is and whoever its parent was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procfs::process::{MountInfo, Process};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::{Context, Result, ensure};
use crate::{containerd, network, process};

/// Where shims put their sockets, by convention and not configurable before containerd 2.3.
const SOCKETS: &str = "/run/containerd/s";

/// Where a shim would keep state outside of its bundles.
const STATE: &str = "/run/shimwright";

/// What dockerd keeps mounted as long as it runs, below the directory of its containerd: its data,
/// mounted on itself, and the network namespace it is in.
const DOCKER_MOUNTS: [&str; 2] = ["docker/data", "docker/exec/netns/default"];

/// Makes this process the one that adopts orphans.
pub fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("adopt orphans")
}

/// Directories, mounts, control groups and network links on this machine that bear our name.
///
/// What the tests make has a name that begins with `PREFIX`, and the network of pods has one of
/// its own. Network namespaces are mounts, or end with their processes.
pub fn traces() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let hierarchies = named_below(Path::new("/sys/fs/cgroup"), |_| true);
    let places = hierarchies
        .into_iter()
        .chain([std::env::temp_dir(), PathBuf::from("/dev/shm")]);
    for place in places {
        let ours = named_below(&place, |name| name.starts_with(PREFIX));
        found.extend(ours.iter().map(|path| path.display().to_string()));
    }
    let links = fs::read_dir("/sys/class/net").context("list the network links")?;
    let links = links.flatten().map(|entry| entry.file_name());
    found.extend(
        links
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with(network::BRIDGES))
            .map(|name| format!("network link {name}")),
    );
    found.extend(network::results(&format!("/{PREFIX}")));
    let points = mounted()?
        .into_iter()
        .map(|mount| mount.mount_point.display().to_string());
    found.extend(
        points
            .filter(|point| point.contains(&format!("/{PREFIX}")))
            .map(|point| format!("mount {point}")),
    );
    Ok(found)
}

/// How the names of everything made for tests begin.
const PREFIX: &str = "shimwright-";

/// The directories in `place` whose names are wanted; none if it cannot be read.
fn named_below(place: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .collect()
}

/// A process below this one.
#[derive(Clone, Debug)]
pub struct Descendant {
    /// Its process id.
    pub pid: i32,
    /// Its arguments, or its name if it has none.
    pub command_line: Vec<String>,
    parent: i32,
    zombie: bool,
}

impl Descendant {
    /// None if the process has just ended.
    fn read(process: &Process) -> Option<Self> {
        let stat = process.stat().ok()?;
        let mut command_line = process.cmdline().unwrap_or_default();
        if command_line.is_empty() {
            command_line.push(stat.comm);
        }
        Some(Self {
            pid: stat.pid,
            command_line,
            parent: stat.ppid,
            zombie: matches!(stat.state, 'Z' | 'X'),
        })
    }
}

/// Every living process below this one, but for those that somebody here waits for.
pub fn descendants() -> Vec<Descendant> {
    let processes = procfs::process::all_processes();
    let processes = processes.into_iter().flatten().flatten();
    let mut all: Vec<_> = processes
        .filter_map(|process| Descendant::read(&process))
        .collect();
    let own = rustix::process::getpid().as_raw_pid();
    let mut tree = BTreeSet::from([own]);
    // A parent may have a higher number than its child, so one pass is not enough.
    loop {
        let before = tree.len();
        tree.extend(
            all.iter()
                .filter(|p| tree.contains(&p.parent))
                .map(|p| p.pid)
                .collect::<Vec<_>>(),
        );
        if tree.len() == before {
            break;
        }
    }
    all.retain(|process| {
        process.pid != own && tree.contains(&process.pid) && !process::is_spawned(process.pid)
    });
    for process in all
        .iter()
        .filter(|process| process.zombie && process.parent == own)
    {
        // It fails if the process has been reaped already, which is as good.
        let pid = Pid::from_raw(process.pid);
        let _ = pid.map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG));
    }
    all.retain(|process| !process.zombie);
    all
}

/// Kills every one of [`descendants`]. Runs in destructors: it ignores interrupts.
pub fn end_descendants() {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let processes = descendants();
        if processes.is_empty() || Instant::now() > end {
            return;
        }
        for process in processes {
            // It fails if the process has just ended.
            let pid = Pid::from_raw(process.pid);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        }
        // A killed process is gone a little later, and its children become ours only then.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes below this one that listen on a shim's socket, whatever they are called.
pub fn shims() -> Vec<Descendant> {
    // Columns: number, references, protocol, flags, type, state, inode, path. The flag is the
    // kernel's __SO_ACCEPTCON.
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let inodes: BTreeSet<_> = table
        .lines()
        .filter_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            let listens = columns.get(3) == Some(&"00010000");
            let is_shim = columns.get(7).is_some_and(|path| path.starts_with(SOCKETS));
            (listens && is_shim).then(|| format!("socket:[{}]", columns[6]))
        })
        .collect();
    let mut found = descendants();
    found.retain(|process| {
        let files = fs::read_dir(format!("/proc/{}/fd", process.pid))
            .into_iter()
            .flatten();
        let mut links = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| inodes.contains(&*link.to_string_lossy()))
    });
    found
}

/// The places where one private containerd and its shims leave traces.
pub struct Ground {
    directory: PathBuf,
    namespace: String,
    sockets_before: BTreeSet<PathBuf>,
    state_before: Vec<PathBuf>,
}

impl Ground {
    /// Remembers what is there already.
    pub fn survey(directory: &Path, namespace: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            namespace: namespace.to_owned(),
            sockets_before: sockets(),
            state_before: children(Path::new(STATE)),
        }
    }

    /// Everything that is left, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in descendants() {
            found.push(format!(
                "process {}: {}",
                process.pid,
                process.command_line.join(" ")
            ));
        }
        let kept = DOCKER_MOUNTS.map(|path| self.directory.join(path));
        let mounts = self.mounts();
        let mounts = mounts.iter().filter(|path| !kept.contains(path));
        found.extend(mounts.map(|path| format!("mount {}", path.display())));
        let cgroups = self.cgroups();
        found.extend(
            cgroups
                .iter()
                .flat_map(|path| children(path))
                .map(|path| format!("cgroup {}", path.display())),
        );
        let state = children(Path::new(STATE)).into_iter();
        let state = state.filter(|path| !self.state_before.contains(path));
        found.extend(state.map(|path| format!("shim state {}", path.display())));
        let bundles = self.directory.join("state/io.containerd.runtime.v2.task");
        for namespace in [&*self.namespace, containerd::PODS] {
            found.extend(
                children(&bundles.join(namespace))
                    .iter()
                    .map(|path| format!("bundle {}", path.display())),
            );
        }
        let containers = self.directory.join("docker/data/containers");
        found.extend(
            children(&containers)
                .iter()
                .map(|path| format!("container {}", path.display())),
        );
        found.extend(network::leftovers(&self.namespace, &self.directory));
        found.extend(
            self.stale_sockets()
                .iter()
                .map(|path| format!("socket {}", path.display())),
        );
        found
    }

    /// Fails unless everything is gone by the deadline.
    pub fn await_clean(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            // containerd and its shims clean up on their own time and tell nobody.
            let found = self.leftovers();
            if found.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "left behind after {deadline:?}:\n      {}",
                found.join("\n      ")
            );
            process::pause(Duration::from_millis(20))?;
        }
    }

    /// Removes everything by force. Runs in destructors: it ignores interrupts and cannot fail.
    pub fn sweep(&self) {
        end_descendants();
        let end = Instant::now() + Duration::from_secs(5);
        for path in self.mounts().iter().rev() {
            // It fails if unmounting another has taken this one along.
            let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
        }
        for path in self.cgroups() {
            while Instant::now() < end && remove_cgroup(&path).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for path in self.stale_sockets() {
            let _ = fs::remove_file(path);
        }
        // Where runc's shim has runc keep its state.
        let _ = fs::remove_dir_all(Path::new("/run/containerd/runc").join(&self.namespace));
    }

    /// Mount points that lie in our directory or show something of it, in order of mounting.
    fn mounts(&self) -> Vec<PathBuf> {
        let directory = self.directory.to_string_lossy();
        let mounts = mounted().unwrap_or_default().into_iter();
        mounts
            .filter(|mount| shows(mount, &directory))
            .map(|mount| mount.mount_point)
            .collect()
    }

    /// The directory of our containerd namespace in each cgroup hierarchy.
    ///
    /// `ctr` puts a container into `/<namespace>/<id>`. Runtimes remove only the last of the two,
    /// because in Kubernetes the first is the pod's and belongs to the kubelet.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for mount in mounted().unwrap_or_default() {
            if mount.fs_type.starts_with("cgroup") {
                find_directories(&mount.mount_point, &self.namespace, 6, &mut found);
            }
        }
        found
    }

    /// Socket files that were not there before and that no process listens on any more.
    ///
    /// A machine's own containerd may start shims while we run: theirs are listened on.
    fn stale_sockets(&self) -> Vec<PathBuf> {
        let bound = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let is_bound = |path: &Path| {
            // The name that tools know a socket by is a link to it.
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            bound
                .lines()
                .any(|line| line.ends_with(path.to_string_lossy().as_ref()))
        };
        sockets()
            .difference(&self.sockets_before)
            .filter(|path| !is_bound(path))
            .cloned()
            .collect()
    }
}

/// What is mounted, in order of mounting.
fn mounted() -> Result<Vec<MountInfo>> {
    let own = Process::myself().and_then(|own| own.mountinfo());
    Ok(own.context("read the mounts")?.0)
}

/// Whether a mount lies in a directory or shows something of it.
fn shows(mount: &MountInfo, directory: &str) -> bool {
    let options = mount.super_options.values().flatten().map(String::as_str);
    let source = mount.mount_source.iter().map(String::as_str);
    let mut texts = options.chain(source).chain([mount.root.as_str()]);
    mount.mount_point.to_string_lossy().contains(directory)
        || texts.any(|text| text.contains(directory))
}

fn sockets() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(SOCKETS).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

fn find_directories(below: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for path in children(below) {
        if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        } else if depth > 0 {
            find_directories(&path, name, depth - 1, found);
        }
    }
}

/// Removes a cgroup with everything below; its processes must have ended.
fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for child in children(path) {
        remove_cgroup(&child)?;
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_that_somebody_waits_for_is_no_leftover() {
        let mut command = Command::new("sleep");
        command.arg("100");
        let child = process::Process::spawn(command).unwrap();
        assert!(
            descendants()
                .iter()
                .all(|process| process.pid != child.pid())
        );
    }

    #[test]
    fn words_of_a_command_line_are_found() {
        let own = Descendant::read(&Process::myself().unwrap()).unwrap();
        assert!(!own.zombie);
        assert_eq!(own.command_line, std::env::args().collect::<Vec<_>>());
    }

    #[test]
    fn clean_ground_has_no_leftovers_but_a_bundle() {
        let directory = tempfile::tempdir().unwrap();
        let ground = Ground::survey(directory.path(), "no-such-namespace");
        assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
        assert_eq!(ground.cgroups(), Vec::<PathBuf>::new());
        let bundles = "state/io.containerd.runtime.v2.task/no-such-namespace/x";
        fs::create_dir_all(directory.path().join(bundles)).unwrap();
        assert!(
            ground
                .leftovers()
                .iter()
                .any(|line| line.starts_with("bundle"))
        );
    }
}
