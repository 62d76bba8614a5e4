//! The page: one file that needs no other, light or dark as the reader's system is.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use shimwright_benches::{Result, machine};

use crate::measure::Measured;
use crate::number::short;
use crate::plot;
use crate::report::Report;

/// The page's style.
const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn page(report: &Report) -> Result<String> {
    let title = format!("Engines on {}", report.subject);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (title) }
                    (origin(report))
                    (summary(report))
                    (problems(report))
                    (plots(report)?)
                    (conformance(report))
                }
            }
        }
    };
    Ok(page.into_string())
}

/// When, where and how it was measured.
fn origin(report: &Report) -> Markup {
    let machine = machine::describe();
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let number = |name: &str| machine[name].as_u64().unwrap_or_default();
    let memory = number("memory_mib") as f64 / 1024.0;
    let processors = format!(
        "{}, {} processors, {memory:.0} GiB",
        text("cpu"),
        number("cpus")
    );
    let system = format!("{}, Linux {}", text("system"), text("kernel"));
    html! {
        dl.facts {
            div { dt { "Measured" } dd { (machine::date()) } }
            div { dt { "Machine" } dd { (processors) } }
            div { dt { "System" } dd { (system) } }
            div { dt { "Command" } dd { code { (report.command) } } }
        }
    }
}

fn summary(report: &Report) -> Markup {
    html! {
        h2 { "Summary" }
        div.wide {
            table {
                thead {
                    tr {
                        th {}
                        @for column in &report.columns {
                            th scope="col" { (column.engine) }
                        }
                    }
                }
                tbody {
                    @for (index, row) in report.rows.iter().enumerate() {
                        tr {
                            th scope="row" { (row.name) " " span { (row.unit) } }
                            @for found in report.measured(index) {
                                (cell(found, report.best(index)))
                            }
                        }
                    }
                }
            }
        }
        p.note {
            "Medians. " b.mark { "\u{25cf}" }
            " marks the best of a row; a dash, that there is no value."
        }
    }
}

fn cell(found: Option<Measured>, best: Option<f64>) -> Markup {
    html! {
        @match found {
            Some(found) if best == Some(found.median) => td.winner { (short(found.median)) },
            Some(found) => td { (short(found.median)) },
            None => td.none { "\u{2013}" },
        }
    }
}

/// Why values are missing.
fn problems(report: &Report) -> Markup {
    let problems = report.problems();
    if problems.is_empty() && report.absent.is_empty() {
        return Markup::default();
    }
    html! {
        h2 { "What could not be measured" }
        ul.problems {
            @for (engine, rows, reason) in problems {
                li { b { (engine) } ", " (rows) ": " code { (reason) } }
            }
            @for (engine, reason) in &report.absent {
                li { b { (engine) } " is not compared: " (reason) }
            }
        }
    }
}

fn plots(report: &Report) -> Result<Markup> {
    let engines = report.columns.iter().map(|column| column.engine.as_str());
    let engines: Vec<&str> = engines.collect();
    let mut figures = Vec::new();
    for (index, row) in report.rows.iter().enumerate() {
        let found: Vec<_> = report.measured(index).collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let svg = plot::svg(row, &engines, &found, report.best(index))?;
        let better = if row.more_is_better {
            "More is better."
        } else {
            "Less is better."
        };
        figures.push(html! {
            figure {
                figcaption { h3 { (row.name) } p { (row.meaning) " " (better) } }
                (PreEscaped(svg))
            }
        });
    }
    Ok(html! {
        h2 { "Measurements" }
        p.note {
            "A bar is the median, the thin line at its end reaches from the first quartile to the \
             third."
        }
        div.plots {
            @for figure in figures { (figure) }
        }
    })
}

fn conformance(report: &Report) -> Markup {
    html! {
        h2 { "Conformance" }
        p.note {
            "Cases that an engine refuses, because it does not have what they are about, or is known \
             not to pass."
        }
        @for column in &report.columns {
            h3 { (column.engine) }
            @match &column.conformance {
                None => p { "Not known." },
                Some(found) => {
                    p { "Passes " (found.passed) " of " (found.cases) " cases." }
                    @if !found.exceptions.is_empty() {
                        ul {
                            @for (number, reason) in &found.exceptions {
                                li {
                                    (number) " " (if *number == 1 { "case" } else { "cases" }) ", "
                                    (reason.replace('`', ""))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn what_others_have_written_is_escaped() {
        let page = page(&sample()).unwrap();
        for raw in ["<function>", "<x>", "<nothing>", "a&b"] {
            assert!(!page.contains(raw), "{raw}");
        }
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let page = page(&sample()).unwrap();
        for foreign in ["<link", "<script", "src=", "url(", "@import", "https:"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_page_has_a_plot_for_each_row_and_every_reason() {
        let report = sample();
        let page = page(&report).unwrap();
        assert_eq!(page.matches("<svg").count(), report.rows.len());
        assert_eq!(page.matches("class=\"winner\"").count(), 2);
        assert!(page.contains("no &lt;function&gt;") && page.contains("no library"));
    }
}
