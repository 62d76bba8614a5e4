//! `cargo xtask attack`: the attacks on the node, from an image, a spec, a guest or a client, that the
//! tests of the shims try, with the cgroups of this machine and with cgroup v2 only.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Result, ensure};
use shimwright_testenv::leak;
use shimwright_testenv::process;

use crate::cargo;
use crate::tally::Tally;
use crate::test;
use crate::vm;
use crate::wasmedge;

/// The module of the tests of the shims that holds the attacks.
const MODULE: &str = "attack::";

/// To list the tests.
const QUERY_DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    debian::require_root("attack")?;
    debian::install_missing()?;
    leak::adopt_orphans()?;
    println!("==> building the shims and their tests");
    let built = vm::build()?;
    wasmedge::build()?;
    let program = vm::test_program(&built)?;
    let names = options.names(&list(&program)?);
    ensure!(!names.is_empty(), "no attack has a name with these texts");
    println!("==> attacks with the cgroups of this machine");
    let mut tally = here(
        &program,
        &cargo::directory_of(&shimwright_engines::shims(), &built)?,
        &names,
    )?;
    if !options.no_vm {
        let all = [MODULE.to_owned()];
        let some = if options.texts.is_empty() {
            &all[..]
        } else {
            &names
        };
        tally += vm::run_tests(some)?;
    }
    println!("\n{tally}");
    Ok(tally.exit_code())
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The attacks whose names hold one of these texts
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// With the cgroups of this machine alone
    #[arg(long)]
    no_vm: bool,
}

impl Options {
    /// The attacks among the names of tests that have one of the texts.
    fn names(&self, all: &[String]) -> Vec<String> {
        let is_wanted = |name: &&String| {
            let mut texts = self.texts.iter();
            name.starts_with(MODULE)
                && (self.texts.is_empty() || texts.any(|text| name.contains(text.as_str())))
        };
        all.iter().filter(is_wanted).cloned().collect()
    }
}

/// The names of all tests of the shims.
fn list(program: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(program);
    command.args(["--list", "--format", "terse"]);
    let text = process::run(command, QUERY_DEADLINE)?.success()?;
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

fn here(program: &Path, shims: &Path, names: &[String]) -> Result<Tally> {
    let cache = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    let mut command = Command::new(program);
    command.arg("--exact").args(names);
    command.env("SHIMWRIGHT_SHIM_DIR", shims);
    command.env("SHIMWRIGHT_CACHE_DIR", cache.path());
    Tally::of_some(command, test::DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn texts_choose_among_the_attacks_alone() {
        let all = words(&[
            "attack::spec::wasmi::a",
            "attack::root::wasmi::b",
            "exec::a",
        ]);
        let names = |texts: &[&str]| crate::parse::<Options>(texts).unwrap().names(&all);
        assert_eq!(names(&[]), all[..2]);
        assert_eq!(names(&["::a"]), all[..1]);
        assert_eq!(names(&["spec", "root"]), all[..2]);
        assert!(names(&["exec"]).is_empty());
    }
}
