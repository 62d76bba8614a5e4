//! What an engine's work has cost for each task, as OpenMetrics text.
//!
//! A launcher knows it when it creates a task, and keeps it in the task's record; a command reads
//! the records. See `docs/decisions/0007-engine-figures.md`.

use std::fmt::Write;
use std::path::Path;

use crate::config::bundle::Bundle;
use crate::config::identity::ProcessId;
use crate::config::record::{EngineMetrics, Record};

/// A task and its figures.
#[derive(Debug)]
pub(crate) struct Task {
    namespace: String,
    id: String,
    figures: EngineMetrics,
    guest_memory: Option<u64>,
}

/// Finds the tasks of an engine whose bundles are in `directory`, as `namespace/id`.
///
/// What goes away meanwhile is left out.
pub(crate) fn collect(directory: &Path, engine: &str) -> std::io::Result<Vec<Task>> {
    let mut found = Vec::new();
    for namespace in names(directory)? {
        let directory = directory.join(&namespace);
        for id in names(&directory).unwrap_or_default() {
            let record = Bundle::new(directory.join(&id)).record();
            if let Some(Record {
                engine: Some((name, figures)),
                init,
                ..
            }) = record
                && name == engine
            {
                found.push(Task {
                    namespace: namespace.clone(),
                    id,
                    figures,
                    guest_memory: init.and_then(guest_memory),
                });
            }
        }
    }
    Ok(found)
}

fn names(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The private memory of a runner in bytes, from `RssAnon` of `proc_pid_status(5)`, unless it has
/// ended.
fn guest_memory(init: ProcessId) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", init.pid)).ok()?;
    // Asked after reading: a pid that is still ours was ours all the time.
    init.open()?;
    parse_memory(&status)
}

fn parse_memory(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// A metric family: its name without the common beginning, its unit, what it means, and its value
/// for a task.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Task) -> Option<f64>,
);

const FAMILIES: [Family; 4] = [
    (
        "compile_seconds",
        "seconds",
        "Time that compiling took when the task was created, if it was not in the cache.",
        |task| task.figures.compile_seconds,
    ),
    (
        "cache_hit",
        "",
        "Whether the compiled program was in the cache when the task was created.",
        |task| task.figures.cache_hit.map(|hit| f64::from(u8::from(hit))),
    ),
    (
        "artifact_bytes",
        "bytes",
        "Size of the program as the engine loads it.",
        |task| Some(task.figures.artifact_bytes as f64),
    ),
    (
        "guest_memory_bytes",
        "bytes",
        "Resident private memory of the engine's process: the guest's linear memory as far as it \
         was touched, and the engine's own.",
        |task| task.guest_memory.map(|bytes| bytes as f64),
    ),
];

/// The text of an exposition (OpenMetrics 1.0, "Text Format").
pub(crate) fn text(engine: &str, tasks: &[Task]) -> String {
    let mut text = String::new();
    for (name, unit, help, value) in FAMILIES {
        let name = format!("shimwright_{name}");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {name} gauge");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(text, "# HELP {name} {help}");
        for task in tasks {
            if let Some(value) = value(task) {
                let (namespace, id) = (escaped(&task.namespace), escaped(&task.id));
                let _ = writeln!(
                    text,
                    "{name}{{engine=\"{engine}\",namespace=\"{namespace}\",container=\"{id}\"}} \
                     {value}"
                );
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Reads the status of a process, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(status: &str) {
    parse_memory(status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_found_by_their_records_and_printed_as_openmetrics() {
        let directory = tempfile::tempdir().unwrap();
        for (id, engine) in [("a", "mine"), ("b", "another"), ("c\"", "mine")] {
            let bundle = Bundle::new(directory.path().join("n").join(id));
            bundle.make_private().unwrap();
            let mut record = Record::new(id);
            let figures = EngineMetrics {
                cache_hit: (id == "a").then_some(false),
                compile_seconds: (id == "a").then_some(0.25),
                artifact_bytes: 4096,
            };
            record.engine = Some((engine.to_owned(), figures));
            bundle.write_record(&record).unwrap();
        }
        std::fs::create_dir(directory.path().join("n/no-bundle")).unwrap();
        let tasks = collect(directory.path(), "mine").unwrap();
        let text = text("mine", &tasks);
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = |id| format!("{{engine=\"mine\",namespace=\"n\",container=\"{id}\"}}");
        let expected = [
            format!("shimwright_compile_seconds{} 0.25", labels("a")),
            format!("shimwright_cache_hit{} 0", labels("a")),
            format!("shimwright_artifact_bytes{} 4096", labels("a")),
            format!("shimwright_artifact_bytes{} 4096", labels("c\\\"")),
        ];
        assert_eq!(samples, expected);
        assert!(text.ends_with("\n# EOF\n"));
        for (name, unit, ..) in FAMILIES {
            assert!(name.ends_with(unit), "OpenMetrics wants {name} to end so");
        }
    }

    #[test]
    fn memory_is_the_anonymous_part() {
        let status = "VmRSS:\t  9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n";
        assert_eq!(parse_memory(status), Some(2 << 20));
        assert_eq!(parse_memory("VmRSS:\t 1 kB\n"), None);
        let own = ProcessId::of(rustix::process::getpid()).unwrap();
        assert!(guest_memory(own).is_some_and(|bytes| bytes > 0));
    }
}
