//! Two reports compared: what has become worse or better beyond the spread of both.

use serde_json::Value;

/// What may be chance also where there is one sample, and so no spread.
const CHANCE: f64 = 0.05;

/// The unit of which more is better, as `benches` writes it.
const MORE_IS_BETTER: &str = "1/s";

/// A measurement that is in both reports.
#[derive(Debug, PartialEq)]
struct Change {
    /// Where it is.
    path: String,
    before: f64,
    now: f64,
    unit: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Worse,
    Better,
    Same,
}

/// What has changed, as text.
pub(super) fn compared(before: &Value, now: &Value) -> String {
    let mut changes = Vec::new();
    collect("", before, now, &mut changes);
    let mut text = String::new();
    if before["machine"] != now["machine"] {
        text.push_str("the baseline is of another machine\n");
    }
    if before["quick"] != now["quick"] {
        text.push_str("one of both runs was a quick one\n");
    }
    for (kind, name) in [(Kind::Worse, "worse"), (Kind::Better, "better")] {
        for change in changes.iter().filter(|change| change.kind == kind) {
            let Change {
                path,
                before,
                now,
                unit,
                ..
            } = change;
            let ratio = now / before;
            text.push_str(&format!(
                "{name:6}  {path}: {before:.2} -> {now:.2} {unit}, {ratio:.2} times\n"
            ));
        }
    }
    let count = |kind| changes.iter().filter(|change| change.kind == kind).count();
    let [worse, better, same] = [Kind::Worse, Kind::Better, Kind::Same].map(count);
    text + &format!(
        "against the baseline: {worse} worse, {better} better, {same} within the spread"
    )
}

/// Finds the measurements of both, which are objects with a `median`.
fn collect(path: &str, before: &Value, now: &Value, changes: &mut Vec<Change>) {
    if now["median"].is_f64() && before["median"].is_f64() {
        changes.extend(change(path, before, now));
    } else if let Some(members) = now.as_object() {
        for (name, member) in members {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            collect(&path, &before[name], member, changes);
        }
    } else if let Some(members) = now.as_array() {
        // Of memory; each of its members says for how many containers it is.
        for member in members {
            let Some(containers) = member["containers"].as_u64() else {
                return;
            };
            let path = format!("{path}/{containers}");
            let others = before.as_array().into_iter().flatten();
            let same = others
                .into_iter()
                .find(|other| other["containers"] == containers);
            collect(&path, same.unwrap_or(&Value::Null), member, changes);
        }
    }
}

fn change(path: &str, before: &Value, now: &Value) -> Option<Change> {
    let of = |report: &Value| {
        let [q1, median, q3] = ["q1", "median", "q3"].map(|name| report[name].as_f64());
        Some((q1?, median?, q3?))
    };
    let (low_before, median_before, high_before) = of(before)?;
    let (low, median, high) = of(now)?;
    let unit = now["unit"].as_str()?.to_owned();
    let kind = if (median / median_before - 1.0).abs() <= CHANCE {
        Kind::Same
    } else if low > high_before {
        if unit == MORE_IS_BETTER {
            Kind::Better
        } else {
            Kind::Worse
        }
    } else if high < low_before {
        if unit == MORE_IS_BETTER {
            Kind::Worse
        } else {
            Kind::Better
        }
    } else {
        Kind::Same
    };
    Some(Change {
        path: path.to_owned(),
        before: median_before,
        now: median,
        unit,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn measurement(unit: &str, q1: f64, median: f64, q3: f64) -> Value {
        json!({ "unit": unit, "q1": q1, "median": median, "q3": q3 })
    }

    fn kind(unit: &str, before: [f64; 3], now: [f64; 3]) -> Kind {
        let report = |[q1, median, q3]: [f64; 3]| json!({ "x": measurement(unit, q1, median, q3) });
        let mut changes = Vec::new();
        collect("", &report(before), &report(now), &mut changes);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].path, "x");
        changes[0].kind
    }

    #[test]
    fn only_what_is_beyond_both_spreads_has_changed() {
        assert_eq!(
            kind("ms", [9.0, 10.0, 11.0], [12.0, 13.0, 14.0]),
            Kind::Worse
        );
        assert_eq!(
            kind("ms", [9.0, 10.0, 11.0], [10.5, 13.0, 14.0]),
            Kind::Same
        );
        assert_eq!(kind("ms", [9.0, 10.0, 11.0], [6.0, 7.0, 8.0]), Kind::Better);
    }

    #[test]
    fn more_of_a_rate_is_better() {
        assert_eq!(
            kind("1/s", [9.0, 10.0, 11.0], [12.0, 13.0, 14.0]),
            Kind::Better
        );
        assert_eq!(kind("1/s", [9.0, 10.0, 11.0], [6.0, 7.0, 8.0]), Kind::Worse);
    }

    #[test]
    fn single_samples_differ_by_chance() {
        assert_eq!(kind("KiB", [100.0; 3], [104.0; 3]), Kind::Same);
        assert_eq!(kind("KiB", [100.0; 3], [106.0; 3]), Kind::Worse);
    }

    #[test]
    fn memory_is_compared_at_the_same_number_of_containers() {
        let at = |containers: u64, kib: f64| json!({ "containers": containers, "pss": measurement("KiB", kib, kib, kib) });
        let before = json!({ "density": { "memory": [at(20, 900.0), at(500, 800.0)] } });
        let now = json!({ "density": { "memory": [at(20, 1000.0), at(60, 1.0)] } });
        let text = compared(&before, &now);
        assert!(
            text.contains("density/memory/20/pss: 900.00 -> 1000.00 KiB, 1.11 times"),
            "{text}"
        );
        assert!(text.contains("1 worse, 0 better, 0 within"), "{text}");
    }

    #[test]
    fn another_machine_is_told() {
        let of = |cpus: u64| json!({ "machine": { "cpus": cpus }, "quick": cpus == 2 });
        let text = compared(&of(2), &of(4));
        assert!(
            text.contains("another machine") && text.contains("quick"),
            "{text}"
        );
        assert!(!compared(&of(2), &of(2)).contains("another machine"));
    }
}
