//! The roles of processes: ARCHITECTURE.md and `lib.rs` of core list those that `role.rs` has.

use std::collections::BTreeSet;

use super::markdown::cells;
use super::tree::Tree;

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const CORE: &str = "crates/shimwright-core/src/";

/// Variables of `role.rs` that say how a role is played.
const NO_ROLES: [&str; 2] = ["SHARED", "WORKING_DIRECTORY"];

/// The head of the first column of a table of processes.
const COLUMN: &str = "process";

/// What documents call the server.
const SERVER: &str = "shim process";

/// Roles that are forks, so that no variable names them.
const FORKED: [&str; 1] = ["launcher"];

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut files = tree.files.iter().filter(|file| file.starts_with(CORE));
    let Some(role) = files.find(|file| file.ends_with("/role.rs")) else {
        return vec![format!("{CORE} has no role.rs")];
    };
    let mut roles = named(&tree.text(role));
    roles.extend(FORKED.map(str::to_owned));
    let lib = format!("{CORE}lib.rs");
    [
        compare(&lib, &roles, &listed(&tree.text(&lib))),
        compare(ARCHITECTURE, &roles, &listed(&tree.text(ARCHITECTURE))),
    ]
    .concat()
}

fn compare(path: &str, roles: &BTreeSet<String>, told: &BTreeSet<String>) -> Vec<String> {
    let missing = roles.difference(told);
    let missing = missing.map(|role| format!("{path} does not list the role {role:?}"));
    let invented = told.difference(roles);
    let invented =
        invented.map(|role| format!("{path} lists the role {role:?}, which role.rs lacks"));
    missing.chain(invented).collect()
}

/// The roles that variables of `role.rs` name.
fn named(text: &str) -> BTreeSet<String> {
    let constants = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub(crate) const "));
    let variables = constants.filter(|rest| rest.contains("= \"SHIMWRIGHT_"));
    let names = variables.filter_map(|rest| rest.split(':').next());
    let roles = names.filter(|name| !NO_ROLES.contains(name));
    roles
        .map(|name| match name {
            "SERVER" => SERVER.to_owned(),
            name => name.to_lowercase(),
        })
        .collect()
}

/// The first column of the tables of processes, without the commands, which are code.
fn listed(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_inside = false;
    for line in text.lines() {
        let line = line.strip_prefix("//! ").unwrap_or(line);
        if !line.starts_with('|') {
            is_inside = false;
            continue;
        }
        let first = cells(line).swap_remove(0);
        if first == COLUMN {
            is_inside = true;
        } else if is_inside && !first.contains("---") && !first.contains('`') {
            found.insert(first);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    const ROLES: &str = "pub(crate) const RUNNER: &str = \"SHIMWRIGHT_RUNNER\";\n\
                         pub(crate) const SERVER: &str = \"SHIMWRIGHT_SERVER\";\n\
                         pub(crate) const SHARED: &str = \"SHIMWRIGHT_SHARED\";\n\
                         const LONGEST: usize = 1;\n";
    const TABLE: &str = "| process | lives |\n| --- | --- |\n| `start` | |\n| shim process | |\n\
                         | launcher | |\n";

    #[test]
    fn a_role_that_a_document_lacks_or_invents_is_found() {
        let lib: String = TABLE.lines().map(|line| format!("//! {line}\n")).collect();
        let architecture = format!("{TABLE}| runner | |\n| tester | |\n\n| other |\n");
        let (_kept, tree) = tree::of(&[
            ("crates/shimwright-core/src/process/role.rs", ROLES),
            ("crates/shimwright-core/src/lib.rs", &lib),
            (ARCHITECTURE, &architecture),
        ]);
        assert_eq!(
            check(&tree),
            [
                "crates/shimwright-core/src/lib.rs does not list the role \"runner\"",
                "ARCHITECTURE.md lists the role \"tester\", which role.rs lacks",
            ]
        );
    }
}
