//! Which case shows that a method of the Task service works, for a guest and for a Linux program.

use std::fmt::Write;

use shimwright_testenv::containerd::Release;
use shimwright_testenv::error::{Result, error};

use crate::cases::{self, Case};

/// A method, and the names of the cases for a guest and for a Linux program. Each of them calls the
/// method and checks what comes of it.
const PROOFS: [(&str, &str, &str); 17] = [
    (
        "Create",
        "a module prints",
        "the exit code of a container is a Linux program's",
    ),
    (
        "Start",
        "a module prints",
        "the exit code of a container is a Linux program's",
    ),
    (
        "State",
        "a guest is paused and resumed",
        "a Linux program is paused and resumed",
    ),
    (
        "Delete",
        "the exit code of a container is its program's",
        "the exit code of a container is a Linux program's",
    ),
    (
        "Wait",
        "the exit code of a container is its program's",
        "the exit code of a container is a Linux program's",
    ),
    (
        "Kill",
        "SIGTERM ends a busy loop",
        "a Linux program is paused and resumed",
    ),
    (
        "Exec",
        "a guest is executed beside a running guest",
        "a Linux program is executed in a running container",
    ),
    (
        "ResizePty",
        "a guest has a terminal",
        "a Linux program has a terminal",
    ),
    (
        "CloseIO",
        "a guest reads to the end of its input",
        "a Linux program reads to the end of its input",
    ),
    (
        "Pids",
        "the processes of a guest are listed",
        "the processes of a Linux program are listed",
    ),
    (
        "Pause",
        "a guest is paused and resumed",
        "a Linux program is paused and resumed",
    ),
    (
        "Resume",
        "a guest is paused and resumed",
        "a Linux program is paused and resumed",
    ),
    (
        "Update",
        "a pod's limits change",
        "a sidecar's limits change",
    ),
    (
        "Stats",
        "the metrics of a guest have its memory",
        "the metrics of a Linux program have its memory",
    ),
    (
        "Connect",
        "a running task survives a restart of containerd",
        "a pod survives a restart of containerd",
    ),
    (
        "Checkpoint",
        "a checkpoint of a guest is refused",
        "a checkpoint of a Linux program is refused",
    ),
    (
        "Shutdown",
        "a killed shim leaves nothing behind",
        "containers of a pod share a shim process",
    ),
];

/// The table for `docs/conformance.md`.
///
/// # Errors
///
/// The name of a case that there is not.
pub(crate) fn table() -> Result<String> {
    let mut table = String::from(
        "| Method | Guest | Linux program | containerd |\n| --- | --- | --- | --- |\n",
    );
    for (method, guest, program) in PROOFS {
        let (guest, program) = (case(guest)?, case(program)?);
        let releases: Vec<_> = Release::ALL
            .iter()
            .filter(|&&release| guest.runs_on(release, true) && program.runs_on(release, true))
            .map(ToString::to_string)
            .collect();
        // A `String` takes everything.
        let _ = writeln!(
            table,
            "| {method} | {} | {} | {} |",
            guest.name,
            program.name,
            releases.join(", ")
        );
    }
    Ok(table)
}

fn case(name: &str) -> Result<&'static Case> {
    let found = cases::all().find(|case| case.name == name);
    found.ok_or_else(|| error!("there is no end-to-end test called {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_the_one_that_is_tested() {
        let path = shimwright_testenv::workspace::root().join("docs/conformance.md");
        let page = std::fs::read_to_string(path).unwrap();
        let table = table().unwrap();
        assert!(page.contains(&table), "docs/conformance.md lacks:\n{table}");
    }

    #[test]
    fn every_method_is_shown_on_every_containerd() {
        for line in table().unwrap().lines().skip(2) {
            assert!(line.ends_with("| 1.6, 1.7, 2.x |"), "{line}");
        }
    }
}
