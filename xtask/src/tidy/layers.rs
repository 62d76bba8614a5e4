//! The layers of core: imports between its folders point one way.

use super::arrows::{Arrows, circles};

/// Each folder of core, and those that it may use.
const LAYERS: [(&str, &[&str]); 12] = [
    (
        "shim",
        &[
            "service",
            "container",
            "stdio",
            "code",
            "runner",
            "process",
            "config",
            "cgroup",
            "policy",
            "sys",
        ],
    ),
    (
        "service",
        &[
            "container",
            "stdio",
            "code",
            "runner",
            "process",
            "config",
            "cgroup",
            "policy",
            "sys",
        ],
    ),
    (
        "container",
        &[
            "stdio", "code", "runner", "process", "config", "cgroup", "policy", "sys",
        ],
    ),
    ("stdio", &["process", "config", "sys"]),
    ("code", &["runner", "process", "config", "cgroup", "sys"]),
    ("runner", &["process", "config", "policy", "sys"]),
    ("process", &["config", "cgroup", "sys"]),
    ("config", &["cgroup", "policy", "sys"]),
    ("cgroup", &["sys"]),
    ("policy", &["sys"]),
    ("engine", &["sys"]),
    ("sys", &[]),
];

/// Folders that every layer above `sys` may use.
const COMMON: [&str; 2] = ["engine", "error"];

/// Files at core's root that are no folder.
const ALONE: &str = "error";

pub(super) fn check(arrows: &Arrows) -> Vec<String> {
    let mut problems = Vec::new();
    for ((from, to), files) in arrows {
        if !may_use(from, to) {
            let files: Vec<_> = files.iter().map(String::as_str).collect();
            let files = files.join(", ");
            problems.push(format!("core: `{from}` may not use `{to}`: {files}"));
        }
    }
    let circles = circles(&arrows.keys().cloned().collect()).into_iter();
    problems.extend(circles.map(|circle| format!("core: a circle of {}", circle.join(", "))));
    problems
}

fn may_use(from: &str, to: &str) -> bool {
    if from == ALONE {
        return to == "engine";
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == from) else {
        return false;
    };
    let is_common = !matches!(from, "sys" | "engine") && COMMON.contains(&to);
    is_common || allowed.contains(&to)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn layers_point_one_way() {
        for (index, (name, allowed)) in LAYERS.iter().enumerate() {
            for other in *allowed {
                let position = LAYERS.iter().position(|(name, _)| name == other);
                assert!(
                    position.is_some_and(|position| position > index),
                    "{name} may use {other}, which is not below it"
                );
            }
        }
    }

    fn problems(arrows: &[(&str, &str)]) -> Vec<String> {
        let arrows = arrows.iter().map(|(from, to)| {
            let files = BTreeSet::from([format!("{from}/mod.rs")]);
            (((*from).to_owned(), (*to).to_owned()), files)
        });
        check(&arrows.collect())
    }

    #[test]
    fn an_arrow_against_the_direction_and_a_circle_are_found() {
        let right = [
            ("shim", "sys"),
            ("shim", "error"),
            ("error", "engine"),
            ("engine", "sys"),
        ];
        assert_eq!(problems(&right), [""; 0]);
        assert_eq!(
            problems(&[("shim", "service"), ("service", "shim")]),
            [
                "core: `service` may not use `shim`: service/mod.rs",
                "core: a circle of service, shim",
            ]
        );
        assert_eq!(
            problems(&[("attic", "sys"), ("shim", "attic")]),
            [
                "core: `attic` may not use `sys`: attic/mod.rs",
                "core: `shim` may not use `attic`: shim/mod.rs",
            ]
        );
    }
}
