//! Links between files of the repository lead to a file, and their anchors to a heading; paths that
//! documents name exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::markdown::{Document, code_spans};
use super::tree::Tree;

/// Where paths from the root begin.
const ROOTS: [&str; 6] = [
    "benches/",
    "crates/",
    "docs/",
    "examples/",
    "fuzz/",
    "xtask/",
];

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let paths = tree.with_extension("md").map(str::to_owned);
    let documents: BTreeMap<_, _> = paths
        .map(|path| {
            let document = Document::parse(&tree.text(&path));
            (path, document)
        })
        .collect();
    let anchors = |path: &str| -> BTreeSet<&str> {
        let headings = documents.get(path).map(|document| &document.headings);
        let headings = headings.into_iter().flatten();
        headings.map(|heading| heading.anchor.as_str()).collect()
    };
    let mut problems = Vec::new();
    for (path, document) in &documents {
        let links = document.links.iter();
        for link in links.filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = resolve(path, file);
            if !tree.has(&target) {
                problems.push(format!("{path} links to `{link}`, which does not exist"));
            } else if !anchor.is_empty() && !anchors(&target).contains(anchor) {
                problems.push(format!(
                    "{path} links to `{link}`: there is no such heading"
                ));
            }
        }
    }
    problems.extend(
        tree.with_extension("md")
            .flat_map(|path| missing_paths(tree, path)),
    );
    problems
}

/// Paths from the root in the code spans of a document that do not exist.
fn missing_paths(tree: &Tree, document: &str) -> Vec<String> {
    let text = tree.text(document);
    let is_path = |span: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        ROOTS.iter().any(|root| span.starts_with(root)) && span.chars().all(plain)
    };
    let missing = code_spans(&text)
        .filter(is_path)
        .filter(|path| !tree.has(path) && !tree.has(&resolve(document, path)));
    missing
        .map(|path| format!("{document}: `{path}` does not exist"))
        .collect()
}

/// The path that a link of a document means; the document itself for an anchor alone.
fn resolve(document: &str, link: &str) -> String {
    if link.is_empty() {
        return document.to_owned();
    }
    let mut target = PathBuf::from(document);
    target.pop();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => {
                target.pop();
            }
            Component::Normal(name) => target.push(name),
            _ => {}
        }
    }
    target.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let (_kept, tree) = tree::of(&[
            (
                "a/one.md",
                "# One\n[1](../two.md#twice-1) [2](#one) [3](https://x.invalid/y)",
            ),
            (
                "two.md",
                "## Twice\n## Twice\n[4](a/three.md) [5](a/one.md#gone) [6](#no)",
            ),
        ]);
        assert_eq!(
            check(&tree),
            [
                "two.md links to `a/three.md`, which does not exist",
                "two.md links to `a/one.md#gone`: there is no such heading",
                "two.md links to `#no`: there is no such heading",
            ]
        );
    }

    #[test]
    fn paths_that_do_not_exist_are_found() {
        let text = "`crates/a/b.rs` `crates/gone.rs` `crates/<name>` `/crates/c`";
        let (_kept, tree) = tree::of(&[("one.md", text), ("crates/a/b.rs", "")]);
        assert_eq!(check(&tree), ["one.md: `crates/gone.rs` does not exist"]);
    }
}
