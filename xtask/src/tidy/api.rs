//! The public API of core is the one that was recorded, so that no change of it goes unseen.
//!
//! rustdoc's JSON is an unstable format. The stable toolchain writes it when it is told that it may,
//! and the crate `public-api` reads it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use public_api::Builder;
use shimwright_testenv::error::{Context, Result, error};
use shimwright_testenv::process;

use super::tree::Tree;
use crate::cargo::{self, BUILD_DEADLINE};

const RECORD: &str = "crates/shimwright-core/public-api.txt";

/// What cargo runs as rustdoc. Only rustdoc is told that it may: build scripts look at the variable
/// too, and would be run again.
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

pub(super) fn check(tree: &Tree) -> Result<Vec<String>> {
    Ok(differences(&tree.text(RECORD), &current()?))
}

/// Records the API as it is.
pub(super) fn record(tree: &Tree) -> Result<()> {
    tree.write(RECORD, &current()?)
}

/// What was added and removed, if anything was, and how to record it.
fn differences(recorded: &str, current: &str) -> Vec<String> {
    let [was, is] = [recorded, current].map(|text| text.lines().collect::<BTreeSet<_>>());
    let removed = was
        .difference(&is)
        .map(|line| format!("{RECORD}: - {line}"));
    let added = is
        .difference(&was)
        .map(|line| format!("{RECORD}: + {line}"));
    let mut problems: Vec<_> = removed.chain(added).collect();
    if !problems.is_empty() {
        problems.push(format!(
            "{RECORD}: the public API has changed; `cargo xtask tidy --update` records it"
        ));
    }
    problems
}

/// One line for each public item.
fn current() -> Result<String> {
    let target = cargo::target_directory()?;
    let rustdoc = wrapper(&target)?;
    // The profile of everything that CI builds.
    let mut command = cargo::cargo(&[
        "rustdoc",
        "--release",
        "--package",
        "shimwright-core",
        "--lib",
    ]);
    command
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", rustdoc);
    process::show(command, BUILD_DEADLINE)?;
    let json = newest(&target)?;
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context("read rustdoc's JSON")?;
    Ok(format!("{api}"))
}

fn wrapper(target: &Path) -> Result<PathBuf> {
    let path = target.join("rustdoc-json.sh");
    // cargo looks at the time of the file, too.
    if fs::read_to_string(&path).is_ok_and(|text| text == RUSTDOC) {
        return Ok(path);
    }
    fs::create_dir_all(target)?;
    fs::write(&path, RUSTDOC).context(format_args!("write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// What rustdoc has written: below the directory of a target that is named, or without.
fn newest(target: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    let below = fs::read_dir(target).context(format_args!("list {}", target.display()))?;
    let below = below.filter_map(|entry| Some(entry.ok()?.path()));
    for directory in below.chain([target.to_owned()]) {
        let path = directory.join("doc/shimwright_core.json");
        if let Ok(written) = fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            found.push((written, path));
        }
    }
    let newest = found.into_iter().max();
    let newest = newest.map(|(_, path)| path);
    newest.ok_or_else(|| error!("rustdoc has written no shimwright_core.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_with_the_command_that_records_it() {
        assert_eq!(differences("a\nb\n", "a\nb\n"), [""; 0]);
        let problems = differences("a\nb\n", "b\nc\n");
        assert_eq!(problems.len(), 3);
        assert!(
            problems[0].ends_with("- a") && problems[1].ends_with("+ c"),
            "{problems:?}"
        );
        assert!(
            problems[2].contains("cargo xtask tidy --update"),
            "{problems:?}"
        );
    }
}
