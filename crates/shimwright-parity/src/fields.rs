//! The fields of a spec: those that `docs/oci-fields.md` has, which a test of core keeps equal to
//! those of the types of `oci-spec`, and those that a case sets.

use std::collections::BTreeSet;

use serde_json::Value;

/// A row for each field, or for several that belong together.
const TABLE: &str = include_str!("../../../docs/oci-fields.md");

/// Objects whose keys are no fields but values.
const MAPS: [&str; 6] = [
    "annotations",
    "linux.netDevices",
    "linux.resources.rdma",
    "linux.resources.unified",
    "linux.sysctl",
    "linux.timeOffsets",
];

/// The fields, in the order of the table. `*` stands for several names.
pub fn all() -> Vec<&'static str> {
    let fields = TABLE.split("## Mount options").next().unwrap_or_default();
    let cell = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
    fields.lines().filter_map(cell).collect()
}

/// The fields that one value has and another has not, or has otherwise.
pub fn set(base: &Value, changed: &Value) -> BTreeSet<String> {
    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    leaves("", base, &mut before);
    leaves("", changed, &mut after);
    let different = after.symmetric_difference(&before);
    different.map(|(field, _)| field.clone()).collect()
}

/// Every value without parts, with the name of its field.
fn leaves(field: &str, value: &Value, found: &mut BTreeSet<(String, String)>) {
    let is_map = MAPS.contains(&field);
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                let name = match (is_map, field) {
                    (true, _) if value.is_object() => format!("{field}{{}}"),
                    (true, _) => field.to_owned(),
                    (false, "") => name.clone(),
                    (false, _) => format!("{field}.{name}"),
                };
                leaves(&name, value, found);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for value in list {
                leaves(&format!("{field}[]"), value, found);
            }
        }
        other => {
            found.insert((field.to_owned(), other.to_string()));
        }
    }
}

/// Whether a row of the table is about a field: `*` stands for one name, at the end for all below.
pub fn covers(row: &str, field: &str) -> bool {
    let mut names = field.split('.');
    let mut wanted = row.split('.').peekable();
    while let Some(pattern) = wanted.next() {
        if pattern == "*" && wanted.peek().is_none() {
            return true;
        }
        let Some(name) = names.next() else {
            return false;
        };
        let is_same = match pattern.strip_prefix('*') {
            Some(end) => name.ends_with(end),
            None => name == pattern,
        };
        if !is_same {
            return false;
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_case_sets_is_found() {
        let base = json!({ "a": 1, "linux": { "devices": [{ "path": "/a" }] } });
        let changed = json!({
            "a": 1,
            "linux": { "devices": [{ "path": "/b" }], "sysctl": { "x.y": "1" } },
        });
        let expected = ["linux.devices[].path", "linux.sysctl"].map(str::to_owned);
        assert_eq!(set(&base, &changed), BTreeSet::from(expected));
        let removed = set(&base, &json!({ "linux": {} }));
        assert!(removed.contains("a") && removed.contains("linux.devices[].path"));
    }

    #[test]
    fn a_row_covers_what_its_stars_stand_for() {
        assert!(covers("hooks.*[].path", "hooks.poststop[].path"));
        assert!(!covers("hooks.*[].path", "hooks.poststop[].args"));
        assert!(covers("linux.intelRdt.*", "linux.intelRdt"));
        assert!(covers("linux.intelRdt.*", "linux.intelRdt.a"));
        assert!(!covers("linux.sysctl", "linux.seccomp"));
        assert!(all().contains(&"process.user.umask"));
    }
}
