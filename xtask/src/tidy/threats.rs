//! The tables of the threat model: each barrier names a test that attacks it, and the test is there.

use std::collections::BTreeMap;

use super::markdown::code_spans;
use super::tree::Tree;

const FILE: &str = "docs/threat-model.md";

/// The column with the tests. A table without it makes no claim that a test could show.
const COLUMN: &str = "tests";

/// What is wrong with the tables.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let tests = functions(tree);
    let rows = rows(&tree.text(FILE));
    if rows.is_empty() {
        return vec![format!("{FILE} has no table with a column `{COLUMN}`")];
    }
    let problems = rows.iter().flat_map(|row| row.problems(&tests));
    problems
        .map(|problem| format!("{FILE}: {problem}"))
        .collect()
}

/// A row of a table that has tests.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    begin: String,
    tests: String,
}

impl Row {
    fn problems(&self, known: &BTreeMap<String, Vec<String>>) -> Vec<String> {
        let begin = &self.begin;
        if self.tests.contains("TODO") {
            return vec![format!("a test is yet to be written for {begin:?}")];
        }
        let mut names = code_spans(&self.tests).peekable();
        if names.peek().is_none() {
            return vec![format!("no test attacks {begin:?}")];
        }
        let missing = names.filter(|name| !is_there(name, known));
        missing
            .map(|name| format!("there is no test `{name}` for {begin:?}"))
            .collect()
    }
}

/// Whether a function has this name, in a file of the modules before it.
fn is_there(name: &str, known: &BTreeMap<String, Vec<String>>) -> bool {
    let (modules, function) = name.rsplit_once("::").unwrap_or(("", name));
    let place = modules.replace("::", "/");
    let mut files = known.get(function).into_iter().flatten();
    files.any(|file| file.contains(&place))
}

/// The cells of the last column of tables that end with the tests.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut has_tests = false;
    let mut is_first = true;
    for line in text.lines() {
        if !line.starts_with('|') {
            is_first = true;
            continue;
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (begin, last) = (cells[0], cells[cells.len() - 1]);
        if is_first {
            has_tests = last == COLUMN;
            is_first = false;
        } else if has_tests && !last.starts_with("---") {
            rows.push(Row {
                begin: [begin, cells.get(1).copied().unwrap_or_default()].join(": "),
                tests: last.to_owned(),
            });
        }
    }
    rows
}

/// The files of each function, and of each name that a case of the conformance suite has.
pub(super) fn functions(tree: &Tree) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in tree.with_extension("rs") {
        for line in tree.text(path).lines() {
            let line = line.trim_start();
            let function = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.split('(').next());
            let case = line
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix("\","));
            for name in function.into_iter().chain(case) {
                found
                    .entry(name.to_owned())
                    .or_default()
                    .push(path.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
| zone | barrier | tests |
| --- | --- | --- |
| a | b | `one`, `attack::spec::two` |
| c | d | |
| e | f | `TODO(root)` |

| what | why |
| --- | --- |
| no | test |
";

    #[test]
    fn rows_of_tables_with_tests_are_found() {
        let rows = rows(TEXT);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].begin, "a: b");
        assert_eq!(rows[1].tests, "");
    }

    #[test]
    fn a_row_needs_tests_that_are_there() {
        let file = "crates/x/tests/shim/attack/spec.rs".to_owned();
        let mut known = BTreeMap::from([("two".to_owned(), vec![file.clone()])]);
        let problems = |known: &_| -> Vec<usize> {
            let rows = rows(TEXT).into_iter();
            rows.map(|row| row.problems(known).len()).collect()
        };
        assert_eq!(problems(&known), [1, 1, 1]);
        known.insert("one".to_owned(), vec![file]);
        assert_eq!(problems(&known), [0, 1, 1]);
        known.insert("two".to_owned(), vec!["src/spec.rs".to_owned()]);
        assert_eq!(problems(&known), [1, 1, 1]);
    }
}
