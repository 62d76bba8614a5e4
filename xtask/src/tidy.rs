//! `cargo xtask tidy`: what compilers cannot check, and ARCHITECTURE.md claims.

mod api;
mod arrows;
mod claims;
mod commands;
mod engines;
mod exceptions;
mod figures;
mod invariants;
mod layers;
mod licences;
mod links;
mod map;
mod markdown;
mod picture;
mod repeats;
mod roles;
mod sizes;
mod symbols;
mod syntax;
mod tables;
mod threats;
mod tree;
mod unused;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shimwright_testenv::error::{Context, Result, error};
use shimwright_testenv::process;

use exceptions::Exceptions;
use syntax::Syntax;
use tree::Tree;

use crate::cargo;

const QUERY_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// Words that may appear only in some files.
const OWNERS: [Owner; 3] = [
    Owner {
        word: "containerd_shim_protos",
        below: "crates/shimwright-core/src",
        owners: &[
            "cgroup/stats/",
            "config/options.rs",
            "container/create.rs",
            "container/rootfs/mod.rs",
            "service/",
            "shim/",
        ],
    },
    Owner {
        word: "libcontainer::",
        below: "crates/shimwright-core/src",
        owners: &["container/"],
    },
    Owner {
        word: "unsafe {",
        below: "crates/shimwright-core/src",
        owners: &["sys/"],
    },
];

struct Owner {
    word: &'static str,
    below: &'static str,
    owners: &'static [&'static str],
}

/// Modules that decide and do no I/O.
const PURE: [&str; 5] = [
    "crates/shimwright-core/src/code/application.rs",
    "crates/shimwright-core/src/code/image.rs",
    "crates/shimwright-core/src/policy/mod.rs",
    "crates/shimwright-core/src/service/event.rs",
    "crates/shimwright-core/src/service/state/mod.rs",
];

/// The example engine, and how long it may become before it is no longer an example.
const EXAMPLE: &str = "examples/wasmi-shim/src";
const EXAMPLE_LINES: usize = 60;
const TUTORIAL: &str = "docs/writing-an-engine.md";

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Print how large the parts are and what uses what, and check nothing
    #[arg(long)]
    figures: bool,
    /// Write what is made from sources: the picture, the record of the API, shorter exceptions
    #[arg(long)]
    update: bool,
    /// Leave out what needs a build: the public API and cargo-deny
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn main(options: Options) -> Result<ExitCode> {
    let tree = Tree::read(&shimwright_testenv::workspace::root())?;
    let syntax = Syntax::read(&tree)?;
    if options.figures {
        figures::print(&tree, &syntax)?;
        return Ok(ExitCode::SUCCESS);
    }
    let problems = check(&tree, &syntax, options)?;
    for problem in &problems {
        println!("  {problem}");
    }
    println!(
        "tidy: {} files, {} problems",
        tree.files.len(),
        problems.len()
    );
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All checks.
fn check(tree: &Tree, syntax: &Syntax, options: Options) -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = packages
        .iter()
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect();
    let mut exceptions = Exceptions::read(tree);
    if options.update {
        picture::write(tree)?;
        if !options.no_build {
            api::record(tree)?;
        }
    }
    let mut problems = [
        map::check(tree, &names),
        sources(tree, &metadata),
        owners(tree),
        layers::check(&arrows::read(tree)?),
        dependencies()?,
        engines::check(tree, &packages),
        example(tree),
        links::check(tree),
        tables::check(tree),
        repeats::check(tree),
        commands::check(tree, &commands::Usage::read()?),
        threats::check(tree),
        symbols::check(tree, syntax),
        invariants::check(tree, syntax),
        roles::check(tree),
        claims::check(tree),
        picture::check(tree),
        unused::check(tree, &packages),
        sizes::check(tree, syntax, &mut exceptions),
    ]
    .concat();
    if !options.no_build {
        problems.extend(api::check(tree)?);
        problems.extend(licences::check()?);
    }
    if options.update {
        exceptions.shorten(tree)?;
    }
    problems.extend(exceptions.unneeded());
    Ok(problems)
}

fn metadata() -> Result<serde_json::Value> {
    let of = |manifest: &str| -> Result<serde_json::Value> {
        let mut command = cargo::cargo(&["metadata", "--format-version=1", "--no-deps"]);
        command.args(["--manifest-path", manifest]);
        let text = process::run(command, QUERY_DEADLINE)?.success()?;
        serde_json::from_str(&text).context("read cargo's metadata")
    };
    let mut metadata = of("Cargo.toml")?;
    for other in [cargo::CRI_CLIENT, cargo::FUZZ_TARGETS] {
        let packages = of(other)?["packages"].take();
        if let (Some(all), serde_json::Value::Array(packages)) =
            (metadata["packages"].as_array_mut(), packages)
        {
            all.extend(packages);
        }
    }
    Ok(metadata)
}

/// Every source file says what it is, and some crate includes it.
fn sources(tree: &Tree, metadata: &serde_json::Value) -> Vec<String> {
    let mut reached = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let path = Path::new(target["src_path"].as_str().unwrap_or_default());
            if let Ok(path) = path.strip_prefix(&tree.root) {
                let directory = path.parent().unwrap_or(Path::new(""));
                reach(tree, path, directory, &mut reached);
            }
        }
    }
    let mut problems = Vec::new();
    for path in tree.with_extension("rs") {
        if !tree.text(path).starts_with("//!") {
            problems.push(format!("{path} does not start with a `//!` line"));
        }
        if !reached.contains(path) {
            problems.push(format!("{path} belongs to no crate"));
        }
    }
    problems
}

/// Follows the `mod` declarations of a file whose modules lie in `directory`.
fn reach(tree: &Tree, file: &Path, directory: &Path, reached: &mut BTreeSet<String>) {
    let path = file.to_string_lossy().into_owned();
    let text = tree.text(&path);
    if !reached.insert(path) {
        return;
    }
    for module in text.lines().filter_map(declared_module) {
        let inner = directory.join(module);
        for file in [directory.join(format!("{module}.rs")), inner.join("mod.rs")] {
            if tree.has(&file.to_string_lossy()) {
                reach(tree, &file, &inner, reached);
            }
        }
    }
}

/// The name in `mod name;`, with any visibility before it.
fn declared_module(line: &str) -> Option<&str> {
    let line = line.trim().strip_suffix(';')?;
    let (before, name) = line.rsplit_once(' ')?;
    let is_declaration = before == "mod" || (before.starts_with("pub") && before.ends_with(" mod"));
    is_declaration.then_some(name)
}

/// Words appear only where they belong, and deciding modules do no I/O.
fn owners(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for Owner {
        word,
        below,
        owners,
    } in &OWNERS
    {
        for path in tree.with_extension("rs") {
            let Some(inner) = path.strip_prefix(below) else {
                continue;
            };
            let inner = inner.trim_start_matches('/');
            let owned = owners.iter().any(|owner| {
                inner == *owner || { owner.ends_with('/') && inner.starts_with(owner) }
            });
            if !owned && code_lines(&tree.text(path)).any(|line| line.contains(word)) {
                problems.push(format!("{path} uses `{word}`, which belongs to {owners:?}"));
            }
        }
    }
    for path in PURE {
        for word in ["std::fs", "std::net", "tokio::", "File::", "rustix::fs"] {
            if code_lines(&tree.text(path)).any(|line| line.contains(word)) {
                problems.push(format!("{path} decides and does no I/O, but uses `{word}`"));
            }
        }
        if !tree.has(path) {
            problems.push(format!(
                "{path} is named in xtask/src/tidy.rs and does not exist"
            ));
        }
    }
    problems
}

/// The lines that are no comments, before the tests.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]");
    lines.filter(|line| !line.trim_start().starts_with("//"))
}

/// Core knows no engine.
fn dependencies() -> Result<Vec<String>> {
    let command = cargo::cargo(&[
        "tree",
        "--package",
        "shimwright-core",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let tree = process::run(command, QUERY_DEADLINE)?.success()?;
    let names: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    if !names.contains("shimwright-core") {
        return Err(error!("cannot read the output of cargo tree"));
    }
    let rows = shimwright_engines::ALL.iter();
    let engines = rows.flat_map(|engine| engine.upstream);
    let engines = engines.filter(|engine| names.contains(**engine));
    Ok(engines
        .map(|engine| format!("shimwright-core depends on {engine}"))
        .collect())
}

/// The tutorial shows the example as it is, and the example stays small.
fn example(tree: &Tree) -> Vec<String> {
    let tutorial = tree.text(TUTORIAL);
    let mut problems = Vec::new();
    let mut lines = 0;
    for path in tree
        .with_extension("rs")
        .filter(|path| path.starts_with(EXAMPLE))
    {
        let text = tree.text(path);
        lines += code_lines(&text)
            .filter(|line| !line.trim().is_empty())
            .count();
        if !tutorial.contains(&format!("```rust\n{text}```")) {
            problems.push(format!(
                "{TUTORIAL} has no block of code that equals {path}"
            ));
        }
    }
    if !(20..=EXAMPLE_LINES).contains(&lines) {
        problems.push(format!(
            "{EXAMPLE} has {lines} lines of code instead of about 50"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_of_modules_are_found() {
        assert_eq!(declared_module("mod task;"), Some("task"));
        assert_eq!(declared_module("    pub(crate) mod task;"), Some("task"));
        assert_eq!(declared_module("mod task {"), None);
        assert_eq!(declared_module("use crate::mod_of;"), None);
    }

    #[test]
    fn code_is_neither_comments_nor_tests() {
        let text = "//! a\nuse b;\n    // c\nfn d() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(
            code_lines(text).collect::<Vec<_>>(),
            ["use b;", "fn d() {}"]
        );
    }
}
