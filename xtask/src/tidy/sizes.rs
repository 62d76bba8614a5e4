//! Files and functions stay small enough to be read at once.

use super::exceptions::Exceptions;
use super::syntax::{Function, Syntax};
use super::tree::Tree;

/// A file has fewer lines.
const FILE_LINES: usize = 500;

/// A function has fewer lines, from its signature to its last brace.
const FUNCTION_LINES: usize = 60;

pub(super) fn check(tree: &Tree, syntax: &Syntax, exceptions: &mut Exceptions) -> Vec<String> {
    let mut problems = Vec::new();
    for (lines, path) in files(tree) {
        if lines >= FILE_LINES && !exceptions.has("file", &path) {
            problems.push(format!(
                "{path} has {lines} lines: fewer than {FILE_LINES} are allowed"
            ));
        }
    }
    for Function { path, name, lines } in &syntax.functions {
        if *lines >= FUNCTION_LINES && !exceptions.has("function", &format!("{path} {name}")) {
            problems.push(format!(
                "{path}: `{name}` has {lines} lines: fewer than {FUNCTION_LINES} are allowed"
            ));
        }
    }
    problems
}

/// All sources with their lengths, the longest first.
pub(super) fn files(tree: &Tree) -> Vec<(usize, String)> {
    let sources = tree.with_extension("rs");
    let mut files: Vec<_> = sources
        .map(|path| (tree.text(path).lines().count(), path.to_owned()))
        .collect();
    files.sort_by(|one, other| other.cmp(one));
    files
}

/// The longest functions.
pub(super) fn functions(syntax: &Syntax) -> Vec<&Function> {
    let mut functions: Vec<_> = syntax.functions.iter().collect();
    functions.sort_by_key(|function| std::cmp::Reverse(function.lines));
    functions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{syntax, tree};

    #[test]
    fn long_files_and_functions_are_found() {
        let body = "    f();\n".repeat(FUNCTION_LINES - 2);
        let long = format!("fn long() {{\n{body}}}\n");
        let short = format!("fn short() {{\n{}}}\n", body.replacen("    f();\n", "", 1));
        let many = "// a\n".repeat(FILE_LINES - 1);
        let files = [
            ("a.rs", long.as_str()),
            ("b.rs", &short),
            ("c.rs", &many),
            ("d.rs", &format!("{many}// b\n")),
        ];
        let (_kept, tree) = tree::of(&files);
        let problems = check(&tree, &syntax::of(&files), &mut Exceptions::default());
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].starts_with("d.rs has 500 lines"),
            "{problems:?}"
        );
        assert!(
            problems[1].starts_with("a.rs: `long` has 60 lines"),
            "{problems:?}"
        );
    }
}
