//! What was measured, as its median and its spread.
//!
//! In JSON a measurement is an object with a `unit`, the `number` of its samples, their `median`,
//! the quartiles `q1` and `q3`, `p95`, `p99`, `min` and `max`. Of less is better, but for the unit
//! [`PER_SECOND`].

use serde_json::{Value, json};

use crate::Result;

/// Milliseconds.
pub const MILLISECONDS: &str = "ms";
/// Kibibytes.
pub const KIBIBYTES: &str = "KiB";
/// How many each second: more is better.
pub const PER_SECOND: &str = "1/s";

/// Samples of one unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    unit: &'static str,
    values: Vec<f64>,
}

impl Samples {
    /// None yet.
    pub fn new(unit: &'static str) -> Self {
        Self {
            unit,
            values: Vec::new(),
        }
    }

    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Adds those of another.
    pub fn extend(&mut self, values: impl IntoIterator<Item = f64>) {
        self.values.extend(values);
    }

    /// In the order they came.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value below which this part of them lies, or between the two that are nearest; no number
    /// if there are no samples.
    pub fn quantile(&self, part: f64) -> f64 {
        quantile(&self.sorted(), part)
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// As JSON.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn summary(&self) -> Result<Value> {
        if self.is_empty() {
            return Err("nothing was measured".into());
        }
        let sorted = self.sorted();
        let at = |part| quantile(&sorted, part);
        Ok(json!({
            "unit": self.unit, "number": sorted.len(), "median": at(0.5), "q1": at(0.25),
            "q3": at(0.75), "p95": at(0.95), "p99": at(0.99), "min": at(0.0), "max": at(1.0),
        }))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// The measurements of a report for people, a line each.
pub fn lines(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    collect("", report, &mut lines);
    lines
}

fn collect(path: &str, report: &Value, lines: &mut Vec<String>) {
    let number = |name: &str| report[name].as_f64();
    if let (Some(median), Some(unit)) = (number("median"), report["unit"].as_str()) {
        let [q1, q3, p99] = ["q1", "q3", "p99"].map(|name| number(name).unwrap_or(f64::NAN));
        let samples = number("number").unwrap_or_default();
        let spread = format!(" (quartiles {q1:.2} and {q3:.2}, p99 {p99:.2}, of {samples})");
        let spread = if samples > 1.0 { &spread } else { "" };
        lines.push(format!("{path}: {median:.2} {unit}{spread}"));
        return;
    }
    let members = report.as_object().into_iter().flatten();
    for (name, member) in members {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}, {name}")
        };
        match member.as_f64() {
            Some(ratio) if name.starts_with("ratio") || name.starts_with("difference") => {
                lines.push(format!("{path}: {ratio:.2}"));
            }
            _ => collect(&path, member, lines),
        }
    }
    for member in report.as_array().into_iter().flatten() {
        if let Some(containers) = member["containers"].as_u64() {
            collect(&format!("{path} of {containers}"), member, lines);
        }
    }
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = sorted.len().saturating_sub(1) as f64 * part;
    let below = sorted.get(place.floor() as usize);
    let above = sorted.get(place.ceil() as usize);
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * place.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::new(MILLISECONDS);
        samples.extend(values.iter().copied());
        samples
    }

    #[test]
    fn quantiles_do_not_depend_on_the_order() {
        let samples = samples(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(samples.median(), 3.0);
        let found = [0.0, 0.25, 0.75, 1.0].map(|part| samples.quantile(part));
        assert_eq!(found, [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(samples.values()[0], 5.0);
    }

    #[test]
    fn a_quantile_between_two_samples_is_between_them() {
        let samples = samples(&[1.0, 2.0, 4.0, 8.0]);
        assert_eq!(samples.median(), 3.0);
        assert_eq!(samples.quantile(0.25), 1.75);
    }

    #[test]
    fn the_summary_has_unit_number_and_spread() {
        let summary = samples(&[1.0, 2.0, 3.0]).summary().unwrap();
        assert_eq!(summary["unit"], "ms");
        assert_eq!(summary["number"], 3);
        assert_eq!(summary["median"], 2.0);
        assert_eq!(summary["q3"], 2.5);
    }

    #[test]
    fn people_are_told_every_measurement_and_ratio() {
        let one = samples(&[2.0]).summary().unwrap();
        let some = samples(&[1.0, 2.0, 3.0]).summary().unwrap();
        let report = json!({
            "shim": { "task": some }, "ratio_of_medians": 1.5, "clients": 4,
            "memory": [{ "containers": 20, "all": one }],
        });
        let expected = [
            "memory of 20, all: 2.00 ms",
            "ratio_of_medians: 1.50",
            "shim, task: 2.00 ms (quartiles 1.50 and 2.50, p99 2.98, of 3)",
        ];
        assert_eq!(lines(&report), expected);
    }

    #[test]
    fn nothing_measured_is_an_error() {
        assert!(samples(&[]).summary().is_err());
        assert!(samples(&[]).median().is_nan());
    }
}
