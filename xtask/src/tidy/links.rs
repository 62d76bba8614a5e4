//! Links between files of the repository lead to a file, and their anchors to a heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::markdown::Document;
use super::tree::Tree;

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
    problems
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
}
