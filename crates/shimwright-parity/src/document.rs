//! Makes `docs/parity.md` of the cases and of what is allowed.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::allowed::{self, Allowed};
use crate::case::{Case, Cgroups, Expected};
use crate::{Stage, cases, fields};

/// What the page says before its tables.
const HEAD: &str = "\
# Parity with runc

`cargo xtask parity` runs each case below with a shim of ours and with runc, on fresh copies of one \
root, and compares what a program inside and the node see of the two containers: exit status, output, \
arguments, environment, working directory, mounts with options and propagation, namespaces, ids, \
groups, capabilities, limits, cgroups and their files, devices and what can be opened, the filter of \
system calls, sysctls, signals, terminals, descriptors, hooks, and the files that are left in the \
root. runc is the newest that Debian has.

This page is generated: `cargo xtask parity --write`. A field of the types of `oci-spec` without a case \
is a failure, and so are a difference that is not allowed here and one that is allowed and is not there \
any more.
";

/// What follows the table of fields.
const ALLOWED: &str = "
## Allowed differences

`*` stands for any text.

| case | what differs | cgroup | why |
| --- | --- | --- | --- |
";

/// The page.
pub fn page(specs: &Specs) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Fields\n\n| field | runc | ours | cases |\n| --- | --- | --- | --- |\n");
    for row in fields::all() {
        let about = specs.cases_of(row);
        let names: Vec<&str> = about.iter().map(|case| case.name).collect();
        let _ = writeln!(
            page,
            "| `{row}` | {} | {} | {} |",
            of_runc(&about),
            of_ours(&about),
            names.join("; ")
        );
    }
    page.push_str(ALLOWED);
    for row in allowed::ALL {
        let cgroups = match row.cgroups {
            Cgroups::Any => "v1, v2",
            Cgroups::V1 => "v1",
            Cgroups::V2 => "v2",
        };
        let Allowed {
            cases,
            place,
            reason,
            ..
        } = row;
        let _ = writeln!(page, "| `{cases}` | `{place}` | {cgroups} | {reason} |");
    }
    page
}

/// The fields that no case sets.
pub fn without_cases(specs: &Specs) -> Vec<&'static str> {
    let mut all = fields::all();
    all.retain(|row| specs.cases_of(row).is_empty());
    all
}

fn of_runc(cases: &[&Case]) -> &'static str {
    let runs = cases.iter().any(|case| case.expected == Expected::Runs);
    let refuses = cases
        .iter()
        .any(|case| matches!(case.expected, Expected::Refused(_)));
    match (runs, refuses) {
        (true, true) => "done; some values refused",
        (true, false) => "done",
        (false, true) => "refused",
        (false, false) => "as the node can",
    }
}

/// The same, unless a difference of one of the cases alone is allowed.
fn of_ours(cases: &[&Case]) -> String {
    let of_case = |row: &&Allowed| {
        row.cases != "*"
            && cases
                .iter()
                .any(|case| allowed::matches(row.cases, case.name))
    };
    let differ = allowed::ALL.iter().filter(of_case).count();
    match differ {
        0 => "the same".to_owned(),
        _ => "differs: see below".to_owned(),
    }
}

/// The fields that each case sets.
#[derive(Debug)]
pub struct Specs {
    cases: Vec<(Case, Vec<String>)>,
}

impl Specs {
    /// Those of every case.
    ///
    /// # Errors
    ///
    /// If there is no spec to begin with.
    pub fn make() -> shimwright_testkit::Result<Self> {
        let base = Stage::imagined()?;
        let mut made = Vec::new();
        for (number, case) in cases::all().into_iter().enumerate() {
            let mut stage = Stage::imagined()?;
            (case.change)(&mut stage);
            let mut set = fields::set(&base.spec, &stage.spec);
            if let Some(change) = case.exec {
                let mut spec = base.spec.clone();
                change(&mut spec["process"]);
                set.extend(fields::set(&base.spec, &spec));
            }
            if number == 0 {
                set = fields::set(&Value::Null, &base.spec);
            }
            set.extend(case.absent.iter().map(|field| (*field).to_owned()));
            made.push((case, set.into_iter().collect()));
        }
        Ok(Self { cases: made })
    }

    /// The cases about a row of the table of fields.
    fn cases_of(&self, row: &str) -> Vec<&Case> {
        let is_about = |set: &[String]| set.iter().any(|field| fields::covers(row, field));
        let found = self.cases.iter().filter(|(_, set)| is_about(set));
        found.map(|(case, _)| case).collect()
    }

    /// Names that more than one case has.
    pub fn twice(&self) -> Vec<&'static str> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (case, _) in &self.cases {
            *seen.entry(case.name).or_default() += 1;
        }
        let twice = seen.into_iter().filter(|(_, count)| *count > 1);
        twice.map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn every_field_of_a_spec_has_a_case() {
        let specs = Specs::make().unwrap();
        assert_eq!(without_cases(&specs), [""; 0]);
        assert_eq!(specs.twice(), [""; 0]);
    }

    #[test]
    fn the_page_is_up_to_date() {
        let page = page(&Specs::make().unwrap());
        let written = include_str!("../../../docs/parity.md");
        assert!(page == written, "run `cargo xtask parity --write`");
    }

    #[test]
    fn what_is_allowed_is_about_a_case() {
        let cases = cases::all();
        for row in allowed::ALL {
            let is_about = |case: &Case| allowed::matches(row.cases, case.name);
            assert!(cases.iter().any(is_about), "{}", row.cases);
        }
    }
}
