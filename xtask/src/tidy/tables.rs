//! Tables of documents are whole: none is cut by an empty line, and all rows have the same cells.

use super::markdown::{cells, prose};
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let documents = tree.with_extension("md");
    documents
        .flat_map(|path| {
            let problems = problems(&tree.text(path));
            let named = problems.into_iter();
            named.map(move |(line, problem)| format!("{path}:{line}: {problem}"))
        })
        .collect()
}

/// What is wrong with the tables of a text, by line.
fn problems(text: &str) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    let mut table: Vec<(usize, &str)> = Vec::new();
    let end = std::iter::once((usize::MAX, ""));
    for (number, line) in prose(text).chain(end) {
        let is_row = line.starts_with('|');
        let follows = table.last().is_none_or(|(last, _)| last + 1 == number);
        if is_row && follows {
            table.push((number, line));
            continue;
        }
        problems.extend(of_table(&table));
        table.clear();
        if is_row {
            table.push((number, line));
        }
    }
    problems
}

fn of_table(table: &[(usize, &str)]) -> Vec<(usize, String)> {
    let Some(&(first, head)) = table.first() else {
        return Vec::new();
    };
    let is_rule = |row: &str| {
        let cells = cells(row);
        cells.iter().all(|cell| cell.contains("---"))
    };
    if !table.get(1).is_some_and(|(_, row)| is_rule(row)) {
        let problem = "a table has no line of dashes: an empty line has cut it";
        return vec![(first, problem.to_owned())];
    }
    let columns = cells(head).len();
    let wrong = table.iter().filter(|(_, row)| cells(row).len() != columns);
    wrong
        .map(|(line, row)| {
            let found = cells(row).len();
            (
                *line,
                format!("a row has {found} cells, its table has {columns}"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "| a | b |\n| --- | --- |\n| 1 | 2 |\n";

    #[test]
    fn a_whole_table_is_right() {
        assert_eq!(problems(RIGHT), []);
        assert_eq!(problems("```\n| no table\n```\n"), []);
    }

    #[test]
    fn a_table_that_an_empty_line_cuts_is_found() {
        let cut = format!("{RIGHT}\n| 3 | 4 |\n");
        assert_eq!(problems(&cut)[0].0, 5);
    }

    #[test]
    fn a_row_with_the_wrong_number_of_cells_is_found() {
        let wrong = format!("{RIGHT}| 3 |\n| 4 | 5 | 6 |\n");
        let lines: Vec<_> = problems(&wrong).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [4, 5]);
    }
}
