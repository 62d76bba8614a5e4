//! `cargo xtask chaos`: faults in every step of a container's life, and what they leave behind.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use shimwright_testenv::debian;
use shimwright_testenv::error::{Result, error};
use shimwright_testenv::leak;
use shimwright_testenv::process::{self, Process};

use crate::cargo;
use crate::tally::Tally;

/// What `cargo xtask test` tries: every fault with every shim, and always the same ones.
const SHORT: [&str; 4] = ["--seconds", "30", "--seed", "1"];

/// For the last round and the report, after the time is up.
const LAST_ROUND: Duration = Duration::from_secs(5 * 60);

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    debian::require_root("chaos")?;
    debian::install_missing()?;
    leak::adopt_orphans()?;
    let before = leak::traces()?;
    println!("==> building the shims");
    let mut names = shimwright_engines::shims();
    names.push(PROGRAM);
    let directory = cargo::build_binaries(&names)?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let passed = run(&directory, &args)?;
    let left: Vec<String> = leak::traces()?.difference(&before).cloned().collect();
    println!("left behind: {left:?}");
    Ok(if passed && left.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

const PROGRAM: &str = "chaos";

/// The short run, as one test.
pub(crate) fn test(directory: &Path) -> Result<Tally> {
    println!("==> chaos {}", SHORT.join(" "));
    let passed = run(directory, &SHORT)?;
    println!("  {} chaos", if passed { "ok     " } else { "FAILED " });
    Ok(Tally {
        passed: passed.into(),
        failed: (!passed).into(),
    })
}

/// How long the program goes on by these arguments.
pub(crate) fn seconds<T: AsRef<str>>(args: &[T]) -> Result<u64> {
    let mut args = args.iter().map(AsRef::as_ref);
    let seconds = args.by_ref().find(|arg| *arg == "--seconds");
    match seconds.and_then(|_| args.next()) {
        Some(text) => text.parse().map_err(|_| error!("not a number: {text}")),
        None => Ok(60),
    }
}

/// Runs the program that tries faults with the shims of a directory, and says whether all went
/// well.
fn run(directory: &Path, args: &[&str]) -> Result<bool> {
    let seconds = seconds(args)?;
    let cache = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    let mut chaos = Command::new(directory.join(PROGRAM));
    for engine in shimwright_engines::ALL {
        chaos.arg("--shim").arg(directory.join(engine.shim));
    }
    chaos.args(args).env("SHIMWRIGHT_CACHE_DIR", cache.path());
    let deadline = Duration::from_secs(seconds) + LAST_ROUND;
    let finished = Process::spawn_as_is(chaos)?.finish(deadline)?;
    process::check_interrupt()?;
    Ok(finished.code == 0)
}
