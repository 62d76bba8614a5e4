//! What must be reached, and whether it is: by ratios within one run, or by the figure where it is
//! one of this machine alone.

use serde_json::Value;

use super::options::FEW;

/// One target.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    what: &'static str,
    /// The figure of the leading shim on another machine: context only.
    peer: &'static str,
    /// What was measured beside ours, in the same run.
    beside: String,
    wanted: &'static str,
    ours: String,
    ratio: Option<f64>,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    Missed,
    /// What it is compared with was not there.
    Unjudged,
}

impl Row {
    pub(super) fn is_met(&self) -> bool {
        self.verdict == Verdict::Met
    }

    pub(super) fn is_judged(&self) -> bool {
        self.verdict != Verdict::Unjudged
    }
}

/// A number found in a report.
struct Found<'a>(&'a Value);

impl Found<'_> {
    /// By a path such as `churn_1/crun/task/median`.
    fn number(&self, path: &str) -> Option<f64> {
        self.0.pointer(&format!("/{path}"))?.as_f64()
    }

    /// The memory of one container in kB when there are so many of them.
    fn memory(&self, scenario: &str, containers: u64) -> Option<f64> {
        let memory = self.0[scenario]["memory"].as_array()?;
        let at = memory.iter().find(|at| at["containers"] == containers)?;
        let kib = at["pss_per_container"]["median"].as_f64()?;
        Some(kib * 1.024)
    }

    fn containers(&self, scenario: &str) -> Option<u64> {
        self.0[scenario]["containers"].as_u64()
    }
}

/// Every target whose scenario has been run.
pub(super) fn rows(report: &Value) -> Vec<Row> {
    let found = Found(report);
    [
        tasks(
            &found,
            "1",
            "tasks/s, hello module, one at a time",
            "13 to 15",
        ),
        tasks(&found, "8", "tasks/s, hello module, 8 at once", "12"),
        against_crun(&found),
        memory(
            &found,
            "density",
            "memory of an idle container, 20 shims",
            "8.0 MB",
            "1.5 MB",
            1500.0,
        ),
        memory(
            &found,
            "density_shared",
            "the same, one shim for all",
            "",
            "0.8 MB",
            800.0,
        ),
        ctr_run(&found),
        requests(&found, "http", "wasi:http hello, 16 connections"),
        slowest_requests(&found, "http"),
        requests(&found, "http_reuse", "the same, 128 requests an instance"),
        slowest_requests(&found, "http_reuse"),
        second_start(&found),
        growth_of_memory(&found, "density", "memory of each of all, one shim each"),
        growth_of_memory(&found, "density_shared", "the same, one shim for all"),
        growth_of_starts(&found, "density", "the last 20 starts, one shim each"),
        growth_of_starts(&found, "density_shared", "the same, one shim for all"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn tasks(found: &Found<'_>, clients: &str, what: &'static str, peer: &'static str) -> Option<Row> {
    let rate = |of: &str| found.number(&format!("{of}churn_{clients}/tasks_per_second/median"));
    let (ours, theirs) = (rate("")?, rate("peer_"));
    Some(Row {
        what,
        peer,
        beside: theirs.map_or_else(String::new, |rate| format!("peer {rate:.0}")),
        wanted: "8 times the peer",
        ours: format!("{ours:.0}"),
        ratio: theirs.map(|theirs| ours / theirs),
        verdict: judged(theirs.map(|theirs| ours >= 8.0 * theirs)),
    })
}

fn against_crun(found: &Found<'_>) -> Option<Row> {
    let ours = found.number("churn_1/shim/task/median")?;
    let crun = found.number("churn_1/crun/task/median");
    Some(Row {
        what: "a task of the hello module",
        peer: "",
        beside: crun.map_or_else(String::new, |crun| format!("crun run {crun:.1} ms")),
        wanted: "faster than crun run, native",
        ours: format!("{ours:.1} ms"),
        ratio: crun.map(|crun| ours / crun),
        verdict: judged(crun.map(|crun| ours < crun)),
    })
}

fn memory(
    found: &Found<'_>,
    scenario: &str,
    what: &'static str,
    peer: &'static str,
    wanted: &'static str,
    most: f64,
) -> Option<Row> {
    let ours = found.memory(scenario, FEW as u64)?;
    let runc = found.memory("idle_runc", FEW as u64);
    Some(Row {
        what,
        peer,
        beside: runc.map_or_else(String::new, |runc| {
            format!("runc, native {}", megabytes(runc))
        }),
        wanted,
        ours: megabytes(ours),
        ratio: runc.map(|runc| ours / runc),
        verdict: judged(Some(ours <= most)),
    })
}

fn ctr_run(found: &Found<'_>) -> Option<Row> {
    let ours = found.number("ctr_run/shim/median")?;
    let runc = found.number("ctr_run/runc/median")?;
    Some(Row {
        what: "ctr run --rm hello",
        peer: "209 ms",
        beside: format!("runc {runc:.0} ms"),
        wanted: "0.7 of runc",
        ours: format!("{ours:.0} ms"),
        ratio: Some(ours / runc),
        verdict: judged(Some(ours <= 0.7 * runc)),
    })
}

fn requests(found: &Found<'_>, scenario: &str, what: &'static str) -> Option<Row> {
    let rate = |path: &str| found.number(&format!("{path}/requests_per_second/median"));
    let (ours, peer, serve) = (
        rate(&format!("{scenario}/shim"))?,
        rate("peer_http/shim"),
        rate(&format!("{scenario}/wasmtime_serve")),
    );
    Some(Row {
        what,
        peer: "7500 to 8200 /s",
        beside: beside(peer, serve, |rate| format!("{rate:.0} /s")),
        wanted: "twice the peer",
        ours: format!("{ours:.0} /s"),
        ratio: peer.or(serve).map(|other| ours / other),
        verdict: judged(peer.map(|peer| ours >= 2.0 * peer)),
    })
}

fn slowest_requests(found: &Found<'_>, scenario: &str) -> Option<Row> {
    let p99 = |path: &str| found.number(&format!("{path}/request/p99"));
    let (ours, peer, serve) = (
        p99(&format!("{scenario}/shim"))?,
        p99("peer_http/shim"),
        p99(&format!("{scenario}/wasmtime_serve")),
    );
    Some(Row {
        what: "its p99",
        peer: "4 to 9 ms",
        beside: beside(peer, serve, |time| format!("{time:.1} ms")),
        wanted: "no worse than the peer",
        ours: format!("{ours:.1} ms"),
        ratio: peer.or(serve).map(|other| ours / other),
        verdict: judged(peer.map(|peer| ours <= peer)),
    })
}

fn beside(peer: Option<f64>, serve: Option<f64>, text: impl Fn(f64) -> String) -> String {
    let peer = peer.map(|value| format!("peer {}", text(value)));
    let serve = serve.map(|value| format!("wasmtime serve {}", text(value)));
    let both: Vec<String> = [peer, serve].into_iter().flatten().collect();
    both.join(", ")
}

fn second_start(found: &Found<'_>) -> Option<Row> {
    let hello = found.number("second_start/shim/task/median")?;
    let python = found.number("second_start/other/task/median")?;
    Some(Row {
        what: "2nd start of CPython, 26 MB",
        peer: "compiles each time",
        beside: format!("hello {hello:.1} ms"),
        wanted: "10 ms more than hello",
        ours: format!("{python:.1} ms, {:.1} ms more", python - hello),
        ratio: Some(python / hello),
        verdict: judged(Some(python - hello <= 10.0)),
    })
}

fn growth_of_memory(found: &Found<'_>, scenario: &str, what: &'static str) -> Option<Row> {
    let containers = found.containers(scenario)?;
    let few = found.memory(scenario, FEW as u64)?;
    let many = found.memory(scenario, containers)?;
    Some(Row {
        what,
        peer: "",
        beside: format!("of {FEW} {}", megabytes(few)),
        wanted: "no worse than of 20",
        ours: format!("of {containers} {}", megabytes(many)),
        ratio: Some(many / few),
        verdict: judged(Some(many <= few)),
    })
}

fn growth_of_starts(found: &Found<'_>, scenario: &str, what: &'static str) -> Option<Row> {
    let containers = found.containers(scenario)?;
    let time = |which: &str| found.number(&format!("{scenario}/{which}/whole/median"));
    let (first, last) = (time("first_starts")?, time("last_starts")?);
    Some(Row {
        what,
        peer: "",
        beside: format!("first {FEW} {first:.1} ms"),
        wanted: "1.5 times the first",
        ours: format!("of {containers} {last:.1} ms"),
        ratio: Some(last / first),
        verdict: judged(Some(last <= 1.5 * first)),
    })
}

fn megabytes(kilobytes: f64) -> String {
    format!("{:.2} MB", kilobytes / 1e3)
}

fn judged(met: Option<bool>) -> Verdict {
    match met {
        Some(true) => Verdict::Met,
        Some(false) => Verdict::Missed,
        None => Verdict::Unjudged,
    }
}

/// The rows as a table of Markdown, in columns.
pub(super) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "what",
            "peer, elsewhere",
            "beside, this run",
            "wanted",
            "ours",
            "ratio",
            "verdict",
        ]
        .map(str::to_owned),
    ];
    lines.extend(rows.iter().map(|row| {
        let verdict = match row.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::Unjudged => "no peer here",
        };
        [
            row.what.to_owned(),
            row.peer.to_owned(),
            row.beside.clone(),
            row.wanted.to_owned(),
            row.ours.clone(),
            row.ratio
                .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            verdict.to_owned(),
        ]
    }));
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    lines.insert(1, widths.map(|width| "-".repeat(width)));
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            text.push_str(&format!("| {cell:width$} "));
        }
        text.push_str("|\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdicts(report: &Value) -> Vec<(&'static str, Verdict)> {
        let rows = rows(report);
        rows.iter().map(|row| (row.what, row.verdict)).collect()
    }

    fn churn(ours: f64, crun: f64) -> Value {
        json!({
            "shim": { "task": { "median": ours } }, "crun": { "task": { "median": crun } },
            "tasks_per_second": { "median": 1e3 / ours },
        })
    }

    #[test]
    fn nothing_is_said_of_what_was_not_run() {
        assert_eq!(rows(&json!({})), []);
    }

    #[test]
    fn crun_is_beaten_or_not_within_the_run() {
        let row = |ours, crun| rows(&json!({ "churn_1": churn(ours, crun) })).remove(1);
        assert!(row(8.0, 9.0).is_met());
        let slower = row(9.0, 8.0);
        assert!(slower.is_judged() && !slower.is_met());
        assert_eq!(slower.ratio, Some(1.125));
        assert_eq!(slower.beside, "crun run 8.0 ms");
    }

    #[test]
    fn a_peer_is_judged_only_if_it_was_measured() {
        let mut report = json!({ "churn_1": churn(10.0, 11.0) });
        assert!(!rows(&report)[0].is_judged());
        for (rate, met) in [(12.0, true), (13.0, false)] {
            report["peer_churn_1"] = json!({ "tasks_per_second": { "median": rate } });
            assert_eq!(rows(&report)[0].is_met(), met);
        }
    }

    #[test]
    fn memory_is_of_the_right_number_and_in_megabytes() {
        let at = |containers: u64, kib: f64| json!({ "containers": containers, "pss_per_container": { "median": kib } });
        let times = |first: f64, last: f64, memory: Vec<Value>| {
            json!({ "density": {
                "containers": 500, "memory": memory,
                "first_starts": { "whole": { "median": first } }, "last_starts": { "whole": { "median": last } },
            }})
        };
        let good = times(10.0, 15.0, vec![at(20, 1464.0), at(500, 1200.0)]);
        assert_eq!(
            verdicts(&good)
                .iter()
                .filter(|(_, verdict)| *verdict == Verdict::Met)
                .count(),
            3
        );
        assert_eq!(rows(&good)[0].ours, "1.50 MB");
        let bad = times(10.0, 15.1, vec![at(20, 1465.0), at(500, 1466.0)]);
        assert!(
            verdicts(&bad)
                .iter()
                .all(|(_, verdict)| *verdict == Verdict::Missed)
        );
    }

    #[test]
    fn the_other_targets_have_their_limits() {
        let report = |ctr: f64, python: f64| {
            json!({
                "ctr_run": { "shim": { "median": ctr }, "runc": { "median": 100.0 } },
                "second_start": {
                    "shim": { "task": { "median": 8.0 } }, "other": { "task": { "median": python } },
                },
            })
        };
        let of = |report: &Value| {
            verdicts(report)
                .into_iter()
                .map(|(_, verdict)| verdict)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&report(70.0, 18.0)), [Verdict::Met, Verdict::Met]);
        assert_eq!(of(&report(71.0, 18.1)), [Verdict::Missed, Verdict::Missed]);
    }

    #[test]
    fn the_table_has_columns() {
        let text = table(&rows(&json!({ "churn_1": churn(8.0, 9.0) })));
        let lengths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lengths.len(), 4);
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
        assert!(
            text.contains("no peer here") && text.contains("| met"),
            "{text}"
        );
    }
}
