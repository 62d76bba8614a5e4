//! Brings what was seen of a container into a form that can be compared: without what differs from
//! run to run, and with the kernel's texts taken apart.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::Stage;
use crate::observe;

/// Lines of a process' status that tell nothing about a container.
const STATUS: [&str; 22] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "NSpid",
    "Threads",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "Cpus_allowed_list",
    "Mems_allowed_list",
];

/// The signals 32 and 33, which glibc's `posix_spawn` has every program ignore.
const OF_GLIBC: u64 = 0b11 << 31;

/// Changes everything that was seen.
pub(crate) fn normalise(mut observed: Value, stage: &Stage, cgroup: &str) -> Value {
    let bundle = observed["bundle"].as_str().unwrap_or_default().to_owned();
    let place = stage.place().to_string_lossy().into_owned();
    // As the root field of a mount has it, which begins at the file system's root.
    let last = place
        .rsplit_once('/')
        .map_or(String::new(), |(_, last)| format!("/{last}"));
    let bundle_in_memory = bundle
        .strip_prefix("/dev/shm")
        .unwrap_or_default()
        .to_owned();
    let mut names = vec![
        (bundle, "$BUNDLE"),
        (place, "$PLACE"),
        (last, "$PLACE"),
        (bundle_in_memory, "$BUNDLE"),
        (cgroup.to_owned(), "$CGROUP"),
    ];
    names.retain(|(name, _)| !name.is_empty());
    // The longest come first: one may be a part of another.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut labels: BTreeMap<String, &str> = BTreeMap::new();
    let mut label = |directory: &str, label: &'static str| {
        for name in observe::namespaces(directory)
            .as_object()
            .into_iter()
            .flat_map(Map::values)
        {
            labels
                .entry(name.as_str().unwrap_or_default().to_owned())
                .or_insert(label);
        }
    };
    label("/proc/self/ns", "node");
    if let Some(holder) = stage.holder() {
        label(&holder.namespaces(), "joined");
    }
    if let Some(object) = observed.as_object_mut() {
        object.remove("bundle");
    }
    for hook in observed["hooks"].as_array_mut().into_iter().flatten() {
        of_hook(hook);
    }
    Normal { names, labels }.value("", observed)
}

/// A hook is a process of the node, or ends before its container runs.
fn of_hook(hook: &mut Value) {
    let pid = &mut hook["state"]["pid"];
    if pid.as_u64().is_some_and(|pid| pid > 1) {
        *pid = json!("of the node");
    }
    // runc lets hooks inherit some of its own.
    if let Some(descriptors) = hook["descriptors"].as_object_mut() {
        descriptors.retain(|number, _| ["0", "1", "2"].contains(&number.as_str()));
    }
}

struct Normal {
    /// What stands for what.
    names: Vec<(String, &'static str)>,
    /// Of namespaces.
    labels: BTreeMap<String, &'static str>,
}

impl Normal {
    fn value(&self, name: &str, value: Value) -> Value {
        match value {
            Value::String(text) => self.text(name, &text),
            Value::Array(list) => {
                let each = list.into_iter().map(|value| self.value("", value));
                Value::Array(each.collect())
            }
            Value::Object(object) => {
                let each = object.into_iter();
                let each = each.map(|(name, value)| {
                    let value = self.value(&name, value);
                    (self.plain(&name), value)
                });
                Value::Object(each.collect())
            }
            other => other,
        }
    }

    fn text(&self, name: &str, text: &str) -> Value {
        match name {
            "mounts" => self.mounts(text),
            "status" if text.contains('\n') => status(text),
            "limits" if text.contains('\n') => table(text),
            "cgroup" if text.contains('\n') => self.groups(text),
            _ => json!(self.plain(text)),
        }
    }

    /// The lines `NUMBER:CONTROLLERS:PATH`.
    fn groups(&self, text: &str) -> Value {
        let lines = text
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let each = lines.map(|(name, path)| (name.to_owned(), json!(self.plain(path))));
        Value::Object(each.collect())
    }

    /// With names instead of paths and numbers.
    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.names {
            text = text.replace(from, to);
        }
        let is_namespace = text.ends_with(']') && text.contains(":[");
        if is_namespace {
            let label = self.labels.get(&text).copied().unwrap_or("new");
            let kind = text.split(':').next().unwrap_or_default();
            return format!("{kind}:{label}");
        }
        text
    }

    /// The lines of `mountinfo` (`proc_pid_mountinfo(5)`), by their mount points.
    fn mounts(&self, text: &str) -> Value {
        let points: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                Some((*words.first()?, *words.get(4)?))
            })
            .collect();
        let mut found = Map::new();
        for line in text.lines() {
            let Some((point, about)) = self.mount(line, &points) else {
                continue;
            };
            let mut key = point.clone();
            let mut number = 1;
            while found.contains_key(&key) {
                number += 1;
                key = format!("{point} ({number})");
            }
            found.insert(key, about);
        }
        Value::Object(found)
    }

    fn mount(&self, line: &str, points: &BTreeMap<&str, &str>) -> Option<(String, Value)> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let [_, parent, _, root, point, options, propagation @ ..] = &left[..] else {
            return None;
        };
        let mut right = right.split(' ');
        let mut next = || right.next().unwrap_or_default();
        let (kind, source, of_file_system) = (next(), next(), next());
        let propagation = propagation.iter().map(|field| field.split(':').next());
        let propagation: Vec<&str> = propagation.flatten().collect();
        // Of other cases.
        if self.plain(point).contains("/shimwright-") {
            return None;
        }
        let about = json!({
            "root": self.plain(root),
            "options": options.split(',').collect::<Vec<_>>(),
            "propagation": propagation.join(","),
            "type": kind,
            "source": self.plain(source),
            "file system": self.plain(of_file_system).split(',').collect::<Vec<_>>(),
            "on": points.get(parent).map(|point| self.plain(point)),
        });
        Some((self.plain(point), about))
    }
}

/// The lines `NAME:\tVALUE` that matter.
fn status(text: &str) -> Value {
    let mut found = Map::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        if STATUS.contains(&name) {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            // The node's number of a process is another one each time.
            let value = if name == "SigIgn" {
                let ignored = u64::from_str_radix(&value, 16).unwrap_or_default();
                format!("{:x}", ignored & !OF_GLIBC)
            } else if name == "NSpid" {
                let numbers: Vec<&str> = value.split(' ').collect();
                let depth = numbers.len();
                let last = numbers.last().copied().unwrap_or_default();
                format!(
                    "{depth} deep, {}",
                    if last == "1" { "1" } else { "another" }
                )
            } else {
                value
            };
            found.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(found)
}

/// The lines of a table whose columns are apart by two spaces or more, below a line with their names.
fn table(text: &str) -> Value {
    let mut found = Map::new();
    for line in text.lines().skip(1) {
        let mut columns = line
            .split("  ")
            .map(str::trim)
            .filter(|column| !column.is_empty());
        if let Some(name) = columns.next() {
            found.insert(
                name.to_owned(),
                json!(columns.collect::<Vec<_>>().join(" ")),
            );
        }
    }
    Value::Object(found)
}
