//! The layers of core: imports between its folders point one way.

use std::collections::BTreeSet;

use super::{Tree, code_lines};

/// Where the layers are.
const CORE: &str = "crates/shimwright-core/src";

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

/// Checks each use of another folder, tests excepted.
pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for path in tree.with_extension("rs") {
        let inner = path.strip_prefix(CORE).map(|p| p.trim_start_matches('/'));
        let Some((folder, _)) = inner.and_then(|inner| inner.split_once('/')) else {
            continue;
        };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == folder) else {
            problems.push(format!("{path} is in no layer of xtask/src/tidy/layers.rs"));
            continue;
        };
        for used in used(&tree.text(path)) {
            let common = !matches!(folder, "sys" | "engine") && COMMON.contains(&used.as_str());
            if used != folder && !common && !allowed.contains(&used.as_str()) {
                problems.push(format!(
                    "{path} uses crate::{used}, which {folder}/ may not"
                ));
            }
        }
    }
    problems
}

/// The modules at the root of core that a file names, up to its tests.
fn used(text: &str) -> BTreeSet<String> {
    let text = text
        .split_once("#[cfg(test)]\nmod tests")
        .map_or(text, |(code, _)| code);
    let mut used = BTreeSet::new();
    for line in code_lines(text) {
        for after in line.split("crate::").skip(1) {
            let names = after.strip_prefix('{').map_or(
                vec![after],
                // A group on one line: each part begins with a name.
                |group| group.split(',').map(str::trim).collect(),
            );
            for name in names {
                let name: String = name
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                if !name.is_empty() {
                    used.insert(name);
                }
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn uses_are_found_and_those_of_tests_are_not() {
        let text = "use crate::sys::fd;\nuse crate::{code, shim::start};\n// crate::policy\nlet a \
                    = crate::cgroup::LOOK;\n#[cfg(test)]\nmod tests {\n use crate::runner;\n}\n";
        let expected = ["cgroup", "code", "shim", "sys"].map(str::to_owned);
        assert_eq!(used(text), BTreeSet::from(expected));
    }
}
