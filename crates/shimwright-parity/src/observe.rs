//! What the node sees of a container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::Stage;

/// Parts of the names of files of cgroups that tell what is used, or do something when written.
const NO_LIMITS: [&str; 22] = [
    "stat",
    "usage",
    "failcnt",
    "events",
    "pressure",
    "procs",
    "tasks",
    "current",
    "peak",
    "clone",
    "notify",
    "release",
    "time_recursive",
    "serviced",
    "sane",
    "threads",
    "avg",
    "io_",
    "force_empty",
    "event_control",
    "state",
    "reclaim",
];

fn text(path: impl AsRef<Path>) -> Value {
    fs::read_to_string(path).map_or(Value::Null, |text| json!(text))
}

/// A process of a container.
pub(crate) fn process(pid: u32, stage: &Stage) -> Value {
    let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    json!({
        "cgroups": cgroups(pid),
        "class of io": command(stage, &["ionice", "-p", &pid.to_string()]),
        "core dumps": text(file("coredump_filter")),
        "gid map": text(file("gid_map")),
        "label": text(file("attr/current")),
        "limits": text(file("limits")),
        "mounts": text(file("mountinfo")),
        "namespaces": namespaces(&format!("/proc/{pid}/ns")),
        "oom score adj": text(file("oom_score_adj")),
        "personality": text(file("personality")),
        "scheduler": scheduler(pid),
        "status": text(file("status")),
        "time offsets": text(file("timens_offsets")),
        "uid map": text(file("uid_map")),
    })
}

/// What an applet of busybox says.
fn command(stage: &Stage, words: &[&str]) -> Value {
    let output = Command::new(stage.busybox()).args(words).output();
    output.map_or(Value::Null, |output| {
        json!(String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// The namespaces in a directory of `/proc`, as links of `/proc` name them.
pub(crate) fn namespaces(directory: &str) -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        found.insert(
            entry.file_name().to_string_lossy().into_owned(),
            json!(target),
        );
    }
    Value::Object(found)
}

/// Nice value, real-time priority and policy: fields 19, 40 and 41 of `proc(5)`.
fn scheduler(pid: u32) -> Value {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let sched = fs::read_to_string(format!("/proc/{pid}/sched")).unwrap_or_default();
    let deadline = sched.lines().filter(|line| line.starts_with("dl."));
    let deadline = deadline
        .filter(|line| line.contains("dl_"))
        .collect::<Vec<_>>();
    json!({
        "deadline": deadline, "nice": field(19), "priority": field(40), "policy": field(41),
    })
}

/// The limits in the cgroups of a process.
fn cgroups(pid: u32) -> Value {
    let listed = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = Map::new();
    for line in listed.lines() {
        let mut words = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (words.next(), words.next()) else {
            continue;
        };
        let hierarchy = hierarchy(controllers);
        let directory = hierarchy.join(path.trim_start_matches('/'));
        let limits = limits(&directory, &hierarchy);
        found.insert(
            controllers.to_owned(),
            json!({ "path": path, "limits": limits }),
        );
    }
    Value::Object(found)
}

/// Where a hierarchy is mounted; version 2 has no controllers in `/proc`.
fn hierarchy(controllers: &str) -> PathBuf {
    let base = Path::new("/sys/fs/cgroup");
    match controllers.strip_prefix("name=").unwrap_or(controllers) {
        "" if base.join("cgroup.controllers").exists() => base.to_owned(),
        "" => base.join("unified"),
        name => base.join(name),
    }
}

fn limits(directory: &Path, hierarchy: &Path) -> Value {
    let mut found = Map::new();
    // The node's own group is nobody's.
    if directory == hierarchy {
        return Value::Null;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_limit = !NO_LIMITS.iter().any(|part| name.contains(part));
        if let (true, Ok(mut content)) = (is_limit, fs::read_to_string(entry.path())) {
            if name == "devices.list" {
                // The order in which they were added means nothing.
                let mut lines: Vec<&str> = content.lines().collect();
                lines.sort_unstable();
                content = lines.join("\n");
            }
            found.insert(name, json!(content));
        }
    }
    Value::Object(found)
}

/// The mounts of the node at and below a directory.
pub(crate) fn mounts(below: &Path) -> Value {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = below.to_string_lossy();
    let is_below = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        point.starts_with(below.as_ref())
    };
    json!(all.lines().filter(is_below).collect::<Vec<_>>().join("\n"))
}

/// All files of a root.
pub(crate) fn files(root: &Path) -> Value {
    let mut found = Map::new();
    walk(root, root, &mut found);
    Value::Object(found)
}

fn walk(root: &Path, directory: &Path, found: &mut Map<String, Value>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let target = fs::read_link(&path).ok();
        let about = format!(
            "{:o} {}:{}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid()
        );
        let size = metadata.is_file().then(|| metadata.len());
        found.insert(
            name,
            json!({ "file": about, "size": size, "target": target }),
        );
        if metadata.is_dir() {
            walk(root, &path, found);
        }
    }
}
