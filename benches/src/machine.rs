//! The machine that something was measured on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// What a figure depends on most, as JSON.
pub fn describe() -> Value {
    json!({
        "system": first_value("/etc/os-release", "PRETTY_NAME=").trim_matches('"'),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "cpu": first_value("/proc/cpuinfo", "model name").trim_start_matches([' ', '\t', ':']),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_mib": memory_mib(),
    })
}

/// The time, to the minute; empty if the machine cannot say it.
pub fn date() -> String {
    let date = Command::new("date")
        .args(["--utc", "+%Y-%m-%d %H:%M UTC"])
        .output();
    let text = date.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().trim().to_owned()
}

/// What follows this beginning of a line in a file; empty if there is none.
fn first_value(path: &str, begin: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(begin));
    value.unwrap_or_default().to_owned()
}

fn memory_mib() -> u64 {
    let text = first_value("/proc/meminfo", "MemTotal:");
    let kib = text.split_whitespace().next();
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}
