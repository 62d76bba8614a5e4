//! Licences and sources of dependencies are those of `deny.toml`: cargo-deny looks.

use std::process::Command;
use std::time::Duration;

use shimwright_testenv::error::Result;
use shimwright_testenv::process;

use crate::cargo::{self, BUILD_DEADLINE};

/// The version that is installed, so that CI does not change by itself.
const VERSION: &str = "0.20.2";

/// What is checked. The database of advisories is out of CI's reach.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// It downloads the crates of other platforms, too.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

pub(super) fn check() -> Result<Vec<String>> {
    if !is_installed()? {
        process::show(install(), BUILD_DEADLINE)?;
    }
    let arguments = [&["deny", "--log-level", "warn", "check"][..], &CHECKS].concat();
    let finished = process::run(cargo::cargo(&arguments), DEADLINE)?;
    if finished.code == 0 {
        return Ok(Vec::new());
    }
    Ok(problems(&finished.stderr))
}

fn is_installed() -> Result<bool> {
    let found = process::run(cargo::cargo(&["deny", "--version"]), DEADLINE)?;
    Ok(found.code == 0 && found.stdout.trim() == format!("cargo-deny {VERSION}"))
}

/// Three minutes of processor time, once on a machine.
fn install() -> Command {
    let mut command = cargo::cargo(&["install", "cargo-deny", "--locked", "--version", VERSION]);
    // Outside of the workspace: its flags are those of shims.
    command.current_dir("/");
    command
}

/// The errors of its report, each with the crates that it is about.
fn problems(report: &str) -> Vec<String> {
    let mut problems: Vec<String> = Vec::new();
    for line in report.lines() {
        if let Some(error) = line.strip_prefix("error") {
            problems.push(format!("cargo deny: {}", error.trim_start_matches(": ")));
        } else if let (Some(last), Some(name)) = (problems.last_mut(), named(line)) {
            last.push_str(&format!(" ({name})"));
        }
    }
    if problems.is_empty() {
        problems.push(format!("cargo deny failed:\n{report}"));
    }
    problems
}

/// The crate in a line such as `   ├ webc v7.0.0`.
fn named(line: &str) -> Option<&str> {
    let name = line.strip_prefix("   ├ ")?;
    let (_, version) = name.split_once(" v")?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_with_their_crates() {
        let report = "warning[x]: y\nerror[rejected]: failed to satisfy license requirements\n   \
                      ┌─ /p:1\n   ├ MPL-2.0 - Mozilla\n   ├ webc v7.0.0\n     └── other v1.0.0\n";
        assert_eq!(
            problems(report),
            ["cargo deny: [rejected]: failed to satisfy license requirements (webc v7.0.0)"]
        );
        assert_eq!(problems("broken").len(), 1);
    }
}
