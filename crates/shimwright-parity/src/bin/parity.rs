//! Tries every case, as `cargo test` tries tests: `--list` names them, a text selects some.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use shimwright_parity::allowed::{self, Allowed};
use shimwright_parity::compare::compare;
use shimwright_parity::world::Programs;
use shimwright_parity::{Case, World, cases};

/// Compares a shim with runc. Root is needed.
#[derive(Debug, Parser)]
#[command(name = "parity")]
struct CommandLine {
    /// The shim
    #[arg(long, value_name = "PATH")]
    shim: PathBuf,
    /// The directory into which runc's package and those it needs are unpacked
    #[arg(long, value_name = "DIRECTORY")]
    runc: PathBuf,
    /// The program inside
    #[arg(long, value_name = "PATH")]
    probe: PathBuf,
    /// A busybox without libraries
    #[arg(long, value_name = "PATH")]
    busybox: PathBuf,
    #[command(flatten)]
    harness: Arguments,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let programs = Programs {
        shim: &line.shim,
        runc: &line.runc,
        probe: &line.probe,
        busybox: &line.busybox,
    };
    // Before there is another thread.
    match World::enter(programs) {
        Ok(world) => run(&line.harness, world),
        Err(error) => {
            eprintln!("parity: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(harness: &Arguments, world: World) -> ExitCode {
    let is_v1 = world.is_v1;
    let tried = Arc::new(Tried {
        world,
        used: Mutex::default(),
    });
    let wanted = cases::all().into_iter().enumerate();
    let wanted = wanted.filter(|(_, case)| case.cgroups.includes(is_v1));
    let trials = wanted.map(|(number, case)| {
        let tried = Arc::clone(&tried);
        Trial::test(case.name, move || tried.case(&case, number))
    });
    let conclusion = libtest_mimic::run(harness, trials.collect());
    let stale = tried.stale(&conclusion);
    for row in &stale {
        eprintln!(
            "allowed, but nothing differs: {} in {}",
            row.place, row.cases
        );
    }
    if conclusion.has_failed() || !stale.is_empty() {
        return ExitCode::from(101);
    }
    ExitCode::SUCCESS
}

/// What all cases share.
struct Tried {
    world: World,
    /// The rows of the table of what is allowed that were needed.
    used: Mutex<BTreeSet<usize>>,
}

impl Tried {
    fn case(&self, case: &Case, number: usize) -> Result<(), Failed> {
        let comparison = compare(&self.world, case, number).map_err(|error| error.to_string())?;
        let mut problems = comparison.problems;
        let rows = allowed::ALL.iter().enumerate();
        let rows = rows.filter(|(_, row)| row.is_about(case.name, self.world.is_v1));
        let rows: Vec<(usize, &Allowed)> = rows.collect();
        let mut used = BTreeSet::new();
        for difference in &comparison.differences {
            match rows.iter().find(|(_, row)| row.allows(difference)) {
                Some((index, _)) => {
                    used.insert(*index);
                }
                None => problems.push(difference.to_string()),
            }
        }
        for (index, row) in rows {
            if row.cases == case.name && !used.contains(&index) {
                problems.push(format!("allowed, but not different: {}", row.place));
            }
        }
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(used);
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems.join("\n").into())
    }

    /// The rows of the table that no case needed, if all were tried.
    fn stale(&self, conclusion: &Conclusion) -> Vec<&'static Allowed> {
        if conclusion.num_filtered_out > 0 || conclusion.num_passed + conclusion.num_failed == 0 {
            return Vec::new();
        }
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = allowed::ALL.iter().enumerate();
        let stale = rows
            .filter(|(index, row)| row.cgroups.includes(self.world.is_v1) && !used.contains(index));
        stale.map(|(_, row)| row).collect()
    }
}
