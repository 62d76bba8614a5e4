//! The invariants of ARCHITECTURE.md: each row names a check, and the check exists.

use std::collections::BTreeSet;

use super::markdown::{cells, code_spans, prose};
use super::symbols::symbol;
use super::syntax::Syntax;
use super::threats;
use super::tree::Tree;

const FILE: &str = "ARCHITECTURE.md";

/// The heads of the table.
const COLUMNS: [&str; 2] = ["invariant", "enforced by"];

pub(super) fn check(tree: &Tree, syntax: &Syntax) -> Vec<String> {
    let text = tree.text(FILE);
    let rows = rows(&text);
    if rows.is_empty() {
        return vec![format!(
            "{FILE} has no table of invariants with {COLUMNS:?}"
        )];
    }
    let known = Known {
        cargo: tree.text("Cargo.toml"),
        // Cases of the conformance suite are among them.
        functions: threats::functions(tree).into_keys().collect(),
        syntax,
    };
    let mut problems = Vec::new();
    for (invariant, enforced) in rows {
        let mut is_checked = false;
        for span in code_spans(&enforced) {
            match kind(span, &known) {
                Kind::Check => is_checked = true,
                Kind::Missing => {
                    problems.push(format!("{FILE}: there is no `{span}` for {invariant:?}"))
                }
                Kind::Other => {}
            }
        }
        if !is_checked {
            problems.push(format!(
                "{FILE}: no test, lint or command checks {invariant:?}"
            ));
        }
    }
    problems
}

enum Kind {
    /// A test, a lint or a command that fails when the invariant is broken.
    Check,
    Missing,
    /// A file, which has a check of its own, or code that keeps to the invariant.
    Other,
}

/// What there is to be named.
struct Known<'a> {
    cargo: String,
    functions: BTreeSet<String>,
    syntax: &'a Syntax,
}

fn kind(span: &str, known: &Known<'_>) -> Kind {
    if let Some(command) = span.strip_prefix("cargo xtask ") {
        let is_check = ["tidy", "attack", "test", "chaos"].contains(&command);
        return if is_check { Kind::Check } else { Kind::Missing };
    }
    if span.contains(" = ") {
        return if known.cargo.contains(span) {
            Kind::Check
        } else {
            Kind::Missing
        };
    }
    if span.ends_with(".rs") || span.contains('/') {
        return Kind::Other;
    }
    let is_there = match symbol(span) {
        Some((owner, name)) => {
            // A path of modules may lead to a test: `attack::root::name`.
            known.syntax.files(owner, name).next().is_some()
        }
        None => known.functions.contains(span),
    };
    // Names of tests are sentences.
    let is_sentence = span.matches('_').count() >= 2;
    match (is_there, is_sentence) {
        (true, true) => Kind::Check,
        (true, false) => Kind::Other,
        (false, _) if symbol(span).is_some() || is_sentence => Kind::Missing,
        (false, _) => Kind::Other,
    }
}

/// The rows of the table, each as an invariant and what enforces it.
fn rows(text: &str) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut is_inside = false;
    for (_, line) in prose(text) {
        if !line.starts_with('|') {
            is_inside = false;
            continue;
        }
        let cells = cells(line);
        if cells == COLUMNS {
            is_inside = true;
        } else if let (true, [invariant, enforced]) = (is_inside, &cells[..])
            && !invariant.starts_with("---")
        {
            rows.push((invariant.clone(), enforced.clone()));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{syntax, tree};

    #[test]
    fn a_row_needs_a_check_that_exists() {
        let text = "| invariant | enforced by |\n| --- | --- |\n\
                    | one | `A::keep`; `a_test_that_is_there` |\n| two | review, `A::keep` |\n\
                    | three | `a_test_that_is_gone` |\n| four | `x = \"deny\"` |\n\
                    | five | `cargo xtask tidy` |\n| six | `A::gone` |\n";
        let source = "struct A;\nimpl A { fn keep() {} }\nfn a_test_that_is_there() {}";
        let syntax = syntax::of(&[("src/a.rs", source)]);
        let (_kept, tree) = tree::of(&[
            (FILE, text),
            ("Cargo.toml", "x = \"deny\"\n"),
            ("src/a.rs", "fn a_test_that_is_there() {}\n"),
        ]);
        assert_eq!(
            check(&tree, &syntax),
            [
                "ARCHITECTURE.md: no test, lint or command checks \"two\"",
                "ARCHITECTURE.md: there is no `a_test_that_is_gone` for \"three\"",
                "ARCHITECTURE.md: no test, lint or command checks \"three\"",
                "ARCHITECTURE.md: there is no `A::gone` for \"six\"",
                "ARCHITECTURE.md: no test, lint or command checks \"six\"",
            ]
        );
    }
}
