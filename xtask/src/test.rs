//! `cargo xtask test`: every test there is, in the release profile, and what they leave behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use shimwright_testenv::debian;
use shimwright_testenv::error::Result;
use shimwright_testenv::leak;
use shimwright_testenv::process;

use crate::cargo;
use crate::chaos;
use crate::e2e::Suite;
use crate::parity;
use crate::sizes;
use crate::tally::Tally;
use crate::vm;
use crate::wasmedge;

/// For all tests without containerd, once they are built.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only the tests without containerd
    #[arg(long, conflicts_with = "e2e_only")]
    unit_only: bool,
    /// Only those on containerd
    #[arg(long)]
    e2e_only: bool,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    run(!options.e2e_only, !options.unit_only)
}

/// Runs the tests without containerd, those on it, or both.
pub(crate) fn run(unit: bool, end_to_end: bool) -> Result<ExitCode> {
    // Also for unit tests: those of the sandbox create namespaces and mounts.
    debian::require_root("test")?;
    debian::install_missing()?;
    leak::adopt_orphans()?;
    let begin = Instant::now();
    let before = leak::traces()?;
    let mut tally = Tally::default();
    println!("==> building everything");
    let shims = build()?;
    wasmedge::build()?;
    if unit {
        println!("==> tests without containerd");
        tally += sizes::check(&shims)?;
        tally += cargo_test(&shims)?;
        tally += parity::test(&shims, parity::TESTED)?;
        tally += chaos::test(&shims)?;
        tally += vm::test()?;
        tally += Tally::of_some(wasmedge::tests(&[])?, DEADLINE)?;
        tally += nothing_left(&before)?;
    }
    if end_to_end {
        let suite = Suite::built_in(&shims)?;
        tally += suite.cases(&[])?;
        tally += suite.programs(None)?;
        tally += nothing_left(&before)?;
    }
    let seconds = begin.elapsed().as_secs();
    println!("\nin {} min {} s:\n{tally}", seconds / 60, seconds % 60);
    Ok(tally.exit_code())
}

/// Builds every target with one choice of features, and returns the shims' directory.
fn build() -> Result<std::path::PathBuf> {
    let built = cargo::build(&[
        "build",
        "--release",
        "--workspace",
        "--all-targets",
        "--all-features",
    ])?;
    cargo::directory_of(&shimwright_engines::shims(), &built)
}

/// Runs `cargo test` and counts what it reports.
fn cargo_test(shims: &Path) -> Result<Tally> {
    // All features: also the tests that need root, and the facade with its engines.
    let mut command = cargo::cargo(&[
        "test",
        "--release",
        "--workspace",
        "--all-features",
        "--no-fail-fast",
    ]);
    let cache = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    command.env("SHIMWRIGHT_SHIM_DIR", shims);
    command.env("SHIMWRIGHT_CACHE_DIR", cache.path());
    Tally::of_some(command, DEADLINE)
}

/// The last test of each part: no process that one of them has started is left, and no directory,
/// mount or control group that was not there before.
fn nothing_left(before: &BTreeSet<String>) -> Result<Tally> {
    // Processes end on their own time after the last test has.
    let ended = process::poll_until("the end of all processes", Duration::from_secs(5), || {
        Ok(leak::descendants().is_empty())
    });
    process::check_interrupt()?;
    let mut left: Vec<String> = leak::traces()?.difference(before).cloned().collect();
    if ended.is_err() {
        let processes = leak::descendants().into_iter();
        left.extend(processes.map(|process| {
            format!(
                "process {}: {}",
                process.pid,
                process.command_line.join(" ")
            )
        }));
        leak::end_descendants();
    }
    if left.is_empty() {
        println!("  ok      no process, directory, mount, control group or network link is left");
        return Ok(Tally {
            passed: 1,
            failed: 0,
        });
    }
    println!("  FAILED  no process, directory, mount, control group or network link is left");
    for what in left {
        println!("      {what}");
    }
    Ok(Tally {
        passed: 0,
        failed: 1,
    })
}
