//! Everything that was found, and the table of it for a terminal.

use crate::measure::{Column, Measured, Row};
use crate::number::short;

/// A comparison.
pub(crate) struct Report {
    /// What was run.
    pub(crate) subject: String,
    /// The command that made it.
    pub(crate) command: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) columns: Vec<Column>,
    /// Engines that are not there, and why.
    pub(crate) absent: Vec<(String, String)>,
}

impl Report {
    /// The measurements of a row, engine by engine.
    pub(crate) fn measured(&self, row: usize) -> impl Iterator<Item = Option<Measured>> {
        let cells = self.columns.iter().map(move |column| &column.cells[row]);
        cells.map(|cell| cell.as_ref().ok().copied())
    }

    /// The best median of a row, unless all are the same or there is only one.
    pub(crate) fn best(&self, row: usize) -> Option<f64> {
        let medians: Vec<f64> = self
            .measured(row)
            .flatten()
            .map(|found| found.median)
            .collect();
        let least = medians.iter().copied().reduce(f64::min)?;
        let most = medians.iter().copied().reduce(f64::max)?;
        if least == most {
            return None;
        }
        Some(if self.rows[row].more_is_better {
            most
        } else {
            least
        })
    }

    /// What went wrong: engine, what was measured, and the reason. The same reason is told once.
    pub(crate) fn problems(&self) -> Vec<(&str, String, &str)> {
        let mut problems: Vec<(&str, String, &str)> = Vec::new();
        for column in &self.columns {
            for (row, cell) in self.rows.iter().zip(&column.cells) {
                let Err(reason) = cell else {
                    continue;
                };
                let known = problems
                    .iter_mut()
                    .find(|(engine, _, known)| *engine == column.engine && known == reason);
                match known {
                    Some((_, rows, _)) => *rows = format!("{rows}, {}", row.name),
                    None => problems.push((&column.engine, row.name.clone(), reason)),
                }
            }
        }
        problems
    }

    /// The table for a terminal. The best of a row has a star.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![vec![String::new()]];
        lines[0].extend(self.columns.iter().map(|column| column.engine.clone()));
        for (index, row) in self.rows.iter().enumerate() {
            let best = self.best(index);
            let mut line = vec![format!("{}, {}", row.name, row.unit)];
            line.extend(self.measured(index).map(|found| match found {
                Some(found) if best == Some(found.median) => format!("{} *", short(found.median)),
                Some(found) => format!("{}  ", short(found.median)),
                None => "-  ".to_owned(),
            }));
            lines.push(line);
        }
        let width = |column: usize| {
            let widths = lines.iter().map(|line| line[column].chars().count());
            widths.max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut text = format!("Engines on {}, medians, * is the best:\n\n", self.subject);
        for line in &lines {
            text.push_str(&format!("{:<1$}", line[0], widths[0]));
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                text.push_str(&format!("  {cell:>width$}"));
            }
            text.push('\n');
        }
        for (engine, rows, reason) in self.problems() {
            text.push_str(&format!("\n{engine}, {rows}: {reason}\n"));
        }
        for (engine, reason) in &self.absent {
            text.push_str(&format!("\n{engine} is not compared: {reason}\n"));
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn measured(median: f64) -> Measured {
        Measured {
            median,
            q1: median * 0.9,
            q3: median * 1.1,
        }
    }

    pub(crate) fn sample() -> Report {
        let row = |name: &str, unit, more_is_better| Row {
            name: name.to_owned(),
            unit,
            more_is_better,
            meaning: "It means <nothing>.".to_owned(),
        };
        let column = |engine: &str, cells| Column {
            engine: engine.to_owned(),
            cells,
            conformance: None,
        };
        let reason = || Err("no <function> \"_start\"".to_owned());
        Report {
            subject: "a&b.wasm".to_owned(),
            command: "compare \"<x>\"".to_owned(),
            rows: vec![
                row("start", "ms", false),
                row("runs", "1/s", true),
                row("gaps", "cases", false),
            ],
            columns: vec![
                column(
                    "one",
                    vec![Ok(measured(8.0)), Ok(measured(100.0)), Ok(measured(0.0))],
                ),
                column(
                    "two",
                    vec![Ok(measured(900.0)), Ok(measured(200.0)), Ok(measured(0.0))],
                ),
                column("three", vec![reason(), reason(), Ok(measured(0.0))]),
            ],
            absent: vec![("four".to_owned(), "no library".to_owned())],
        }
    }

    #[test]
    fn the_best_is_the_least_or_the_most_and_none_of_equals() {
        let report = sample();
        assert_eq!(report.best(0), Some(8.0));
        assert_eq!(report.best(1), Some(200.0));
        assert_eq!(report.best(2), None);
    }

    #[test]
    fn a_reason_is_told_once_for_everything_it_is_the_reason_of() {
        let report = sample();
        let problems = report.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].1, "start, runs");
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_every_reason() {
        let text = sample().text();
        let starts = text.lines().find(|line| line.starts_with("start, ms"));
        let words: Vec<&str> = starts.unwrap().split_whitespace().collect();
        assert_eq!(words[2..], ["8", "*", "900", "-"]);
        assert!(
            text.contains("200 *") && text.contains("three, start, runs: no <function>"),
            "{text}"
        );
        assert!(text.contains("four is not compared: no library"), "{text}");
    }
}
