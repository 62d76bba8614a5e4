//! Tries every case, as `cargo test` tries tests: `--list` names them, a text selects some.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use shimwright_parity::allowed::{self, Allowed};
use shimwright_parity::compare::compare;
use shimwright_parity::document::{self, Specs};
use shimwright_parity::world::Programs;
use shimwright_parity::{Case, World, cases};

/// Compares a shim with runc. Root is needed.
#[derive(Debug, Parser)]
#[command(name = "parity")]
struct CommandLine {
    /// Print `docs/parity.md` instead
    #[arg(long)]
    page: bool,
    /// The shim
    #[arg(long, value_name = "PATH", required_unless_present = "page")]
    shim: Option<PathBuf>,
    /// The directory into which runc's package and those it needs are unpacked
    #[arg(long, value_name = "DIRECTORY", required_unless_present = "page")]
    runc: Option<PathBuf>,
    /// The program inside
    #[arg(long, value_name = "PATH", required_unless_present = "page")]
    probe: Option<PathBuf>,
    /// A busybox without libraries
    #[arg(long, value_name = "PATH", required_unless_present = "page")]
    busybox: Option<PathBuf>,
    #[command(flatten)]
    harness: Arguments,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    if line.page {
        return print_page();
    }
    let programs = Programs {
        shim: &line.shim.unwrap_or_default(),
        runc: &line.runc.unwrap_or_default(),
        probe: &line.probe.unwrap_or_default(),
        busybox: &line.busybox.unwrap_or_default(),
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

fn print_page() -> ExitCode {
    let specs = match Specs::make() {
        Ok(specs) => specs,
        Err(error) => {
            eprintln!("parity: {error}");
            return ExitCode::FAILURE;
        }
    };
    let page = document::page(&specs);
    let mut output = std::io::stdout().lock();
    match output.write_all(page.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
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
