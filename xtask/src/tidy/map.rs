//! ARCHITECTURE.md's code map: every path in it exists, and every crate, folder and file of core at
//! the top is in it.

use std::collections::BTreeSet;

use super::markdown::code_spans;
use super::tree::Tree;

const FILE: &str = "ARCHITECTURE.md";
const CORE: &str = "crates/shimwright-core/src/";

pub(super) fn check(tree: &Tree, packages: &[String]) -> Vec<String> {
    let text = tree.text(FILE);
    if text.is_empty() {
        return vec![format!("{FILE} is missing")];
    }
    let spans: BTreeSet<_> = code_spans(&text).collect();
    let mut problems = Vec::new();
    for path in spans.iter().filter(|span| looks_like_path(tree, span)) {
        // A path need not begin at the root: it may mean one of any crate.
        let somewhere = format!("/{path}");
        let is_there = |file: &String| {
            file.ends_with(&somewhere) || (path.ends_with('/') && file.contains(&somewhere))
        };
        if !tree.has(path) && !tree.files.iter().any(is_there) {
            problems.push(format!("{FILE}: `{path}` does not exist"));
        }
    }
    for name in packages {
        if !text.contains(&format!("`{name}`")) && !text.contains(&format!("/{name}`")) {
            problems.push(format!("{FILE} does not mention the crate `{name}`"));
        }
    }
    for entry in entries(tree) {
        let full = format!("{CORE}{entry}");
        if !spans.contains(&*entry) && !spans.contains(&*full) {
            problems.push(format!("{FILE}: the code map lacks `{full}`"));
        }
    }
    problems
}

/// The files and, with a slash, the folders at the top of core.
fn entries(tree: &Tree) -> BTreeSet<String> {
    let files = tree.files.iter().filter_map(|file| file.strip_prefix(CORE));
    files
        .map(|file| match file.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => file.to_owned(),
        })
        .collect()
}

fn looks_like_path(tree: &Tree, span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !span.chars().all(plain) || span.starts_with('/') {
        return false;
    }
    let is_file = [".rs", ".md", ".toml"]
        .iter()
        .any(|extension| span.ends_with(extension));
    let first = span.split('/').next().unwrap_or_default();
    let is_folder = |folder: &str| tree.files.iter().any(|file| file.starts_with(folder));
    is_file || (span.contains('/') && (span.ends_with('/') || is_folder(&format!("{first}/"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn what_the_map_lacks_and_what_it_invents_is_found() {
        let (_kept, tree) = tree::of(&[
            (
                FILE,
                "`crates/shimwright-core/src/engine/` `error.rs` `gone/` `crates/gone.rs` `a`",
            ),
            ("crates/shimwright-core/src/engine/mod.rs", ""),
            ("crates/shimwright-core/src/error.rs", ""),
            ("crates/shimwright-core/src/shim/mod.rs", ""),
        ]);
        assert_eq!(
            check(&tree, &["a".to_owned(), "b".to_owned()]),
            [
                "ARCHITECTURE.md: `crates/gone.rs` does not exist",
                "ARCHITECTURE.md: `gone/` does not exist",
                "ARCHITECTURE.md does not mention the crate `b`",
                "ARCHITECTURE.md: the code map lacks `crates/shimwright-core/src/shim/`",
            ]
        );
    }

    #[test]
    fn spans_that_look_like_paths() {
        let (_kept, tree) = tree::of(&[("docs/x.md", "")]);
        for path in ["docs/y", "service.rs", "docs/gone.md", "gone/"] {
            assert!(looks_like_path(&tree, path), "{path}");
        }
        for other in ["wasi/wasm", "/run/shimwright", "Shim::new", "docs/<name>"] {
            assert!(!looks_like_path(&tree, other), "{other}");
        }
    }
}
