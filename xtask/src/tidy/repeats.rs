//! Nothing is said twice: headings and paragraphs of documents are unique.

use std::collections::BTreeMap;

use super::markdown::Document;
use super::tree::Tree;

/// Shorter paragraphs may be repeated: they are hardly worth a link.
const SHORTEST: usize = 90;

/// Documents of one form: each has the same headings below its title.
const FORMS: [(&str, &str); 2] = [("docs/decisions/", ".md"), ("crates/", "/README.md")];

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let documents: Vec<_> = tree
        .with_extension("md")
        .map(|path| (path, Document::parse(&tree.text(path))))
        .collect();
    [headings(&documents), paragraphs(&documents)].concat()
}

fn headings(documents: &[(&str, Document)]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut problems = Vec::new();
    for (path, document) in documents {
        for heading in &document.headings {
            let Some(first) = seen.insert(heading.text.clone(), *path) else {
                continue;
            };
            let is_shared = first != *path && heading.level > 1 && are_of_one_form(first, path);
            if !is_shared {
                let text = &heading.text;
                problems.push(format!("{path}: {first} has the heading {text:?} already"));
            }
        }
    }
    problems
}

fn are_of_one_form(one: &str, other: &str) -> bool {
    FORMS.iter().any(|(begin, end)| {
        let has_form = |path: &str| path.starts_with(begin) && path.ends_with(end);
        has_form(one) && has_form(other)
    })
}

fn paragraphs(documents: &[(&str, Document)]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut problems = Vec::new();
    for (path, document) in documents {
        let paragraphs = document.paragraphs.iter();
        for text in paragraphs.filter(|text| text.len() >= SHORTEST) {
            if let Some(first) = seen.insert(text.as_str(), *path) {
                let begin: String = text.chars().take(60).collect();
                problems.push(format!("{path}: {first} says already: {begin:?}"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn repetitions_are_found() {
        let long = "A sentence that is long enough to be worth a link instead of a repetition. \
                    So it is said in one place.\n";
        let one = format!("# One\n\n## Settings\n\n{long}\nshort\n");
        let two = format!("# Two\n\n## Settings\n\nshort\n\nshort\n\n{long}");
        let (_kept, tree) = tree::of(&[("docs/one.md", &one), ("docs/two.md", &two)]);
        let problems = check(&tree);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("\"Settings\""), "{problems:?}");
        assert!(problems[1].contains("A sentence"), "{problems:?}");
    }

    #[test]
    fn documents_of_one_form_share_their_headings_and_no_title() {
        let (_kept, tree) = tree::of(&[
            ("docs/decisions/1.md", "# One\n## Context\n"),
            ("docs/decisions/2.md", "# Two\n## Context\n"),
            ("docs/decisions/3.md", "# Two\n## Context\n## Context\n"),
        ]);
        let problems = check(&tree);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
