//! The figures of README.md are those of the benchmarks: none is invented, and none is out of date.

use std::collections::BTreeSet;

use super::markdown::{cells, prose};
use super::tree::Tree;

const FILE: &str = "README.md";
const SOURCE: &str = "docs/benchmarks.md";

/// The head of the column with our figures, in the table that compares.
const COLUMN: &str = "Shimwright, Wasmtime";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let measured: BTreeSet<_> = numbers(&tree.text(SOURCE)).collect();
    let text = tree.text(FILE);
    let rows = rows(&text);
    if rows.is_empty() {
        return vec![format!("{FILE} has no table with a column {COLUMN:?}")];
    }
    let figures = rows.iter().flat_map(|row| row[1..].iter());
    let figures = figures.flat_map(|cell| numbers(cell));
    figures
        .filter(|figure| !measured.contains(figure))
        .map(|figure| format!("{FILE}: the figure {figure} is not in {SOURCE}"))
        .collect()
}

/// The rows of the table, by their cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = prose(text).map(|(_, line)| line);
    let table = lines.skip_while(|line| !(line.starts_with('|') && line.contains(COLUMN)));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(cells).collect()
}

/// The numbers in a text, without commas between thousands.
fn numbers(text: &str) -> impl Iterator<Item = String> + '_ {
    let is_part = |c: char| c.is_ascii_digit() || ".,".contains(c);
    let words = text.split(move |c: char| !is_part(c));
    let numbers = words.map(|word| word.trim_matches(['.', ',']).replace(',', ""));
    numbers.filter(|number| !number.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn a_figure_that_was_not_measured_is_found() {
        let table = "| | Shimwright, Wasmtime | runc |\n| --- | --- | --- |\n\
                     | 16 connections | 20,558; 0.33 MB in one | 5.37 MB |\n| b | 41 ms | |\n";
        let measured = "| x | 20558 /s | 0.33 MB | runc 5.37 MB | 40 ms |\n";
        let (_kept, tree) = tree::of(&[(FILE, table), (SOURCE, measured)]);
        assert_eq!(
            check(&tree),
            ["README.md: the figure 41 is not in docs/benchmarks.md"]
        );
    }
}
