//! `cargo xtask test`: every test there is, in the release profile, and what they leave behind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cargo;
use crate::chaos;
use crate::debian;
use crate::e2e::{self, Selection, Tally};
use crate::error::{Result, ensure, error};
use crate::leak;
use crate::process::{self, Process};
use crate::programs;
use crate::sizes;
use crate::vm;
use crate::wasmedge;

/// For all tests without containerd, once they are built.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let (unit, end_to_end) = match args {
        [] => (true, true),
        [only] if only == "--unit-only" => (true, false),
        [only] if only == "--e2e-only" => (false, true),
        _ => return Err(error!("test takes --unit-only, --e2e-only or nothing")),
    };
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
        tally += chaos::test(&shims)?;
        tally += vm::test()?;
        tally += count(wasmedge::tests(&[])?)?;
        tally += nothing_left(&before)?;
    }
    if end_to_end {
        tally += e2e::run(&Selection::all(), Some(&shims))?;
        tally += programs::run(&shims, None)?;
        tally += nothing_left(&before)?;
    }
    let seconds = begin.elapsed().as_secs();
    println!("\nin {} min {} s:\n{tally}", seconds / 60, seconds % 60);
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
    cargo::directory_of(&cargo::SHIMS, &built)
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
    count(command)
}

/// Runs a program of tests and counts what it reports.
pub(crate) fn count(mut command: Command) -> Result<Tally> {
    let (reader, writer) = std::io::pipe()?;
    command.stdout(Stdio::from(writer));
    let process = Process::spawn_as_is(command)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut tally = Tally::default();
        for line in BufReader::new(reader)
            .lines()
            .map_while(std::result::Result::ok)
        {
            println!("{line}");
            tally += reported(&line).unwrap_or_default();
        }
        // The receiver is gone only if the deadline has passed.
        let _ = sender.send(tally);
    });
    let code = process.finish(DEADLINE)?.code;
    let mut tally = receiver.recv_timeout(Duration::from_secs(5)).map_err(|_| {
        error!("cargo test has ended, but something it left behind holds its stdout open")
    })?;
    ensure!(
        tally.passed + tally.failed > 0,
        "cargo test ended with {code} and has run no test"
    );
    if code != 0 && tally.failed == 0 {
        println!("cargo test ended with {code} although no test has failed");
        tally.failed += 1;
    }
    Ok(tally)
}

/// The numbers of a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
pub(crate) fn reported(line: &str) -> Option<Tally> {
    let line = line.strip_prefix("test result:")?;
    let number_before = |word: &str| {
        let mut words = line.split([' ', ';']).filter(|word| !word.is_empty());
        let mut last = None;
        words.find_map(|found| {
            if found == word {
                last
            } else {
                last = found.parse().ok();
                None
            }
        })
    };
    Some(Tally {
        passed: number_before("passed")?,
        failed: number_before("failed")?,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = reported(line).unwrap();
        assert_eq!((tally.passed, tally.failed), (12, 3));
        assert!(reported("running 3 tests").is_none());
    }

    #[test]
    fn a_command_that_runs_no_test_is_an_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 1"]);
        assert!(count(command).is_err());
    }

    #[test]
    fn a_failure_without_a_failed_test_counts() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: ok. 1 passed; 0 failed; x'; exit 101",
        ]);
        let tally = count(command).unwrap();
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }
}
