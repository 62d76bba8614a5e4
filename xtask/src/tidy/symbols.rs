//! Names of code in documents: each `Type::function` is there, and in the file that is named with it.

use super::markdown::{cells, code_spans, prose};
use super::syntax::Syntax;
use super::tree::Tree;

/// Documents in which every name is one of ours. In others, a name may be of another project.
const OURS: [&str; 2] = ["ARCHITECTURE.md", VOCABULARY];

/// Its last column names code.
const VOCABULARY: &str = "docs/vocabulary.md";

pub(super) fn check(tree: &Tree, syntax: &Syntax) -> Vec<String> {
    let mut problems = Vec::new();
    for path in tree.with_extension("md") {
        let text = tree.text(path);
        for span in code_spans(&text) {
            if let Some((owner, name)) = symbol(span)
                && (syntax.has_owner(owner) || OURS.contains(&path))
                && syntax.files(owner, name).next().is_none()
            {
                problems.push(format!("{path}: `{span}` does not exist"));
            }
        }
        if path == VOCABULARY {
            problems.extend(words(&text, syntax).map(|problem| format!("{path}: {problem}")));
        }
        problems.extend(placed(&text, syntax).map(|problem| format!("{path}: {problem}")));
    }
    problems
}

/// The last two names of `a::B::c`, of which the last may have parentheses.
pub(super) fn symbol(span: &str) -> Option<(&str, &str)> {
    let span = span.split('(').next()?;
    let (before, name) = span.rsplit_once("::")?;
    let owner = before.rsplit("::").next()?;
    let is_name = |text: &str| {
        let mut rest = text.chars();
        let first = rest.next();
        first.is_some_and(|c| c.is_ascii_alphabetic())
            && rest.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    (is_name(owner) && is_name(name)).then_some((owner, name))
}

/// Names without an owner in the last column of the vocabulary that do not exist.
fn words<'a>(text: &'a str, syntax: &'a Syntax) -> impl Iterator<Item = String> + 'a {
    let rows = prose(text).filter(|(_, line)| line.starts_with('|'));
    let last = rows.filter_map(|(_, line)| cells(line).pop());
    last.flat_map(|cell| {
        let spans = code_spans(&cell).filter(|span| !span.contains("::"));
        let names = spans.map(|span| span.split('(').next().unwrap_or(span));
        let missing = names.filter(|name| !syntax.has(name));
        let missing = missing.map(|name| format!("`{name}` does not exist"));
        missing.collect::<Vec<_>>()
    })
}

/// What is written as "`Type::function` in `file.rs`" and is not in that file.
fn placed<'a>(text: &'a str, syntax: &'a Syntax) -> impl Iterator<Item = String> + 'a {
    prose(text).flat_map(move |(_, line)| {
        let parts: Vec<_> = line.split('`').collect();
        let pairs = parts
            .windows(3)
            .filter(|part| part[1] == " in " && part[2].ends_with(".rs"));
        let wrong = pairs.filter_map(|part| {
            let (owner, name) = symbol(part[0])?;
            let mut files = syntax.files(owner, name);
            let is_there = files.any(|file| file.ends_with(part[2]));
            (!is_there).then(|| format!("`{}` is not in `{}`", part[0], part[2]))
        });
        wrong.collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{syntax, tree};

    #[test]
    fn names_that_do_not_exist_are_found() {
        let syntax = syntax::of(&[
            ("src/a.rs", "struct A;\nimpl A { fn f() {} }"),
            ("src/b.rs", ""),
        ]);
        let text = "`A::f` in `src/a.rs`, `A::f()` in `src/b.rs`, `A::g`, `Other::h`\n";
        let (_kept, tree) = tree::of(&[("ARCHITECTURE.md", text), ("docs/x.md", text)]);
        assert_eq!(
            check(&tree, &syntax),
            [
                "ARCHITECTURE.md: `A::g` does not exist",
                "ARCHITECTURE.md: `Other::h` does not exist",
                "ARCHITECTURE.md: `A::f()` is not in `src/b.rs`",
                "docs/x.md: `A::g` does not exist",
                "docs/x.md: `A::f()` is not in `src/b.rs`",
            ]
        );
    }

    #[test]
    fn a_word_for_code_that_does_not_exist_is_found() {
        let syntax = syntax::of(&[("src/a.rs", "struct A;\nimpl A { fn f() {} }")]);
        let text = "| word | meaning | in code |\n| --- | --- | --- |\n\
                    | a | an `X` | `A`, `f()` |\n| b | | `B` |\n";
        let (_kept, tree) = tree::of(&[("docs/vocabulary.md", text)]);
        assert_eq!(
            check(&tree, &syntax),
            ["docs/vocabulary.md: `B` does not exist"]
        );
    }

    #[test]
    fn only_names_are_symbols() {
        assert_eq!(symbol("a::B::c(x)"), Some(("B", "c")));
        for other in ["[::]:8080", "a", "::ffff:10.0.0.1", "fd00::/8"] {
            assert_eq!(symbol(other), None, "{other}");
        }
    }
}
