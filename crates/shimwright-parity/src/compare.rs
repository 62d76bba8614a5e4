//! Runs a case with both runtimes and tells what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;
use shimwright_testkit::{Containerd, Result};

use crate::case::Expected;
use crate::normal::normalise;
use crate::{Case, Stage, World, ours, runc};

/// Something that was seen and is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where in what was seen, such as `inside/names/host`.
    pub place: String,
    /// With runc.
    pub runc: String,
    /// With our shim.
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, runc, ours } = self;
        write!(f, "{place}: runc {runc}, ours {ours}")
    }
}

/// What is not as expected of a case.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// All that differs.
    pub differences: Vec<Difference>,
    /// What else is wrong: runc does not what is expected, or an error does not name its reason.
    pub problems: Vec<String>,
}

/// Runs a case with both.
///
/// # Errors
///
/// If one of them cannot be run, or leaves something.
pub fn compare(world: &World, case: &Case, number: usize) -> Result<Comparison> {
    let containerd = Containerd::with_shim(&world.shim)?;
    let cgroup = format!("/{}/container", containerd.namespace());
    let stage = |who: &str| -> Result<Stage> {
        // As long for both.
        let mut stage = Stage::new(world, &format!("{number}-{who}"), &cgroup)?;
        (case.change)(&mut stage);
        Ok(stage)
    };
    let place = stage("runc")?;
    // On the same file system as the other.
    let bundle = containerd.directory().join("runc");
    let of_runc =
        runc::run(world, case, &place, &bundle).map_err(|error| format!("runc: {error}"))?;
    let expected = normalise(of_runc.observed, &place, &cgroup);
    let place = stage("ours")?;
    let of_ours = ours::run(&containerd, case, &place).map_err(|error| format!("ours: {error}"))?;
    let found = normalise(of_ours.observed, &place, &cgroup);
    let mut comparison = Comparison {
        differences: differences(&expected, &found),
        problems: Vec::new(),
    };
    // Why it is refused is what matters then.
    if let [Difference { place, ours, .. }] = &mut comparison.differences[..]
        && place == "outcome"
    {
        *ours = format!("{ours}: {}", of_ours.said);
    }
    let said = Said {
        runc: &of_runc.said,
        ours: &of_ours.said,
    };
    comparison
        .problems
        .extend(said.check(case, &expected, &found));
    Ok(comparison)
}

/// What the runtimes said.
struct Said<'a> {
    runc: &'a str,
    ours: &'a str,
}

impl Said<'_> {
    fn check(&self, case: &Case, expected: &Value, found: &Value) -> Option<String> {
        let refused = |seen: &Value| seen["outcome"] == "refused";
        match case.expected {
            Expected::Runs if refused(expected) => Some(format!("runc refuses it: {}", self.runc)),
            Expected::Refused(_) if !refused(expected) => Some("runc accepts it".to_owned()),
            Expected::Refused(text) if refused(found) && !self.ours.contains(text) => {
                Some(format!("{text:?} is not in our error: {}", self.ours))
            }
            _ => None,
        }
    }
}

/// What differs between two values.
fn differences(runc: &Value, ours: &Value) -> Vec<Difference> {
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    // Nothing else can be compared then.
    if runc["outcome"] == "refused" && ours["outcome"] == "refused" {
        // What is left in a root that nobody uses does not matter.
        flatten("hooks", &runc["hooks"], &mut left);
        flatten("hooks", &ours["hooks"], &mut right);
        return different(&left, &right);
    }
    let both = |seen: &Value| (seen["outcome"].clone(), seen["exec"]["outcome"].clone());
    if both(runc) != both(ours) {
        for (seen, found) in [(runc, &mut left), (ours, &mut right)] {
            flatten("outcome", &seen["outcome"], found);
            flatten("exec/outcome", &seen["exec"]["outcome"], found);
        }
    } else {
        flatten("", runc, &mut left);
        flatten("", ours, &mut right);
    }
    different(&left, &right)
}

fn different(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> Vec<Difference> {
    let places: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let absent = || "nothing".to_owned();
    let difference = |place: &String| {
        let (runc, ours) = (left.get(place), right.get(place));
        (runc != ours).then(|| Difference {
            place: place.clone(),
            runc: runc.cloned().unwrap_or_else(absent),
            ours: ours.cloned().unwrap_or_else(absent),
        })
    };
    places.into_iter().filter_map(difference).collect()
}

/// Every value without parts, and the path to it.
fn flatten(place: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let below = |name: &str| {
        if place.is_empty() {
            name.to_owned()
        } else {
            format!("{place}/{name}")
        }
    };
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                flatten(&below(name), value, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (index, value) in list.iter().enumerate() {
                flatten(&below(&index.to_string()), value, found);
            }
        }
        other => {
            found.insert(place.to_owned(), other.to_string());
        }
    }
}
