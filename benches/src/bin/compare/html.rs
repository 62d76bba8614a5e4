//! The page: one file that needs no other, light or dark as the reader's system is.

use std::fmt::Write;

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
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
        escape(&title),
        escape(&title)
    );
    page.push_str(&origin(report));
    page.push_str(&summary(report));
    page.push_str(&problems(report));
    page.push_str(&plots(report)?);
    page.push_str(&conformance(report));
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

/// Text as it stands in HTML, also in an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// When, where and how it was measured.
fn origin(report: &Report) -> String {
    let machine = machine::describe();
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let number = |name: &str| machine[name].as_u64().unwrap_or_default();
    let memory = number("memory_mib") as f64 / 1024.0;
    let facts = [
        ("Measured", machine::date()),
        (
            "Machine",
            format!(
                "{}, {} processors, {memory:.0} GiB",
                text("cpu"),
                number("cpus")
            ),
        ),
        (
            "System",
            format!("{}, Linux {}", text("system"), text("kernel")),
        ),
    ];
    let mut html = "<dl class=\"facts\">\n".to_owned();
    for (name, value) in facts {
        let _ = writeln!(
            html,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    let command = escape(&report.command);
    let _ = writeln!(
        html,
        "<div><dt>Command</dt><dd><code>{command}</code></dd></div>\n</dl>"
    );
    html
}

fn summary(report: &Report) -> String {
    let mut html = "<h2>Summary</h2>\n<div class=\"wide\"><table>\n<thead><tr><th></th>".to_owned();
    for column in &report.columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(&column.engine));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (index, row) in report.rows.iter().enumerate() {
        let (name, unit) = (escape(&row.name), escape(row.unit));
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{name} <span>{unit}</span></th>"
        );
        let best = report.best(index);
        for found in report.measured(index) {
            html.push_str(&cell(found, best));
        }
        html.push_str("</tr>\n");
    }
    html.push_str(
        "</tbody></table></div>\n<p class=\"note\">Medians. <b class=\"mark\">\u{25cf}</b> marks the \
         best of a row; a dash, that there is no value.</p>\n",
    );
    html
}

fn cell(found: Option<Measured>, best: Option<f64>) -> String {
    match found {
        Some(found) if best == Some(found.median) => {
            format!("<td class=\"winner\">{}</td>", short(found.median))
        }
        Some(found) => format!("<td>{}</td>", short(found.median)),
        None => "<td class=\"none\">\u{2013}</td>".to_owned(),
    }
}

/// Why values are missing.
fn problems(report: &Report) -> String {
    let problems = report.problems();
    if problems.is_empty() && report.absent.is_empty() {
        return String::new();
    }
    let mut html = "<h2>What could not be measured</h2>\n<ul class=\"problems\">\n".to_owned();
    for (engine, rows, reason) in problems {
        let (engine, rows, reason) = (escape(engine), escape(&rows), escape(reason));
        let _ = writeln!(
            html,
            "<li><b>{engine}</b>, {rows}: <code>{reason}</code></li>"
        );
    }
    for (engine, reason) in &report.absent {
        let (engine, reason) = (escape(engine), escape(reason));
        let _ = writeln!(html, "<li><b>{engine}</b> is not compared: {reason}</li>");
    }
    html.push_str("</ul>\n");
    html
}

fn plots(report: &Report) -> Result<String> {
    let engines: Vec<&str> = report
        .columns
        .iter()
        .map(|column| column.engine.as_str())
        .collect();
    let mut html =
        "<h2>Measurements</h2>\n<p class=\"note\">A bar is the median, the thin line at its \
                    end reaches from the first quartile to the third.</p>\n<div class=\"plots\">\n"
            .to_owned();
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
        let (name, meaning) = (escape(&row.name), escape(&row.meaning));
        let _ = writeln!(
            html,
            "<figure>\n<figcaption><h3>{name}</h3><p>{meaning} {better}</p></figcaption>\n{svg}</figure>"
        );
    }
    html.push_str("</div>\n");
    Ok(html)
}

fn conformance(report: &Report) -> String {
    let mut html =
        "<h2>Conformance</h2>\n<p class=\"note\">Cases that an engine refuses, because it \
                    does not have what they are about, or is known not to pass.</p>\n"
            .to_owned();
    for column in &report.columns {
        let engine = escape(&column.engine);
        let Some(found) = &column.conformance else {
            let _ = writeln!(html, "<h3>{engine}</h3>\n<p>Not known.</p>");
            continue;
        };
        let _ = writeln!(
            html,
            "<h3>{engine}</h3>\n<p>Passes {} of {} cases.</p>",
            found.passed, found.cases
        );
        if found.exceptions.is_empty() {
            continue;
        }
        html.push_str("<ul>\n");
        for (number, reason) in &found.exceptions {
            let cases = if *number == 1 { "case" } else { "cases" };
            let reason = escape(&reason.replace('`', ""));
            let _ = writeln!(html, "<li>{number} {cases}, {reason}</li>");
        }
        html.push_str("</ul>\n");
    }
    html
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn what_others_have_written_is_escaped() {
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
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
