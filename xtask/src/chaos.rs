//! `cargo xtask chaos`: faults in every step of a container's life, and what they leave behind.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_testenv::debian;
use shimwright_testenv::error::Result;
use shimwright_testenv::leak;
use shimwright_testenv::process::{self, Process};

use crate::cargo;
use crate::tally::Tally;

/// What `cargo xtask test` tries: every fault with every shim, and always the same ones.
const SHORT: Options = Options {
    seconds: 30,
    seed: Some(1),
    fault: None,
    shims: Vec::new(),
};

#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(id = "faults")]
pub(crate) struct Options {
    /// How long it goes on
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// What repeats the random choices of a failure
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The faults whose names hold this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) fault: Option<String>,
    /// A shim instead of all that are built
    #[arg(long = "shim", value_name = "PATH")]
    pub(crate) shims: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 60,
            seed: None,
            fault: None,
            shims: Vec::new(),
        }
    }
}

impl Options {
    /// The same for the program, but for the shims.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec!["--seconds".to_owned(), self.seconds.to_string()];
        if let Some(seed) = self.seed {
            words.extend(["--seed".to_owned(), seed.to_string()]);
        }
        if let Some(fault) = &self.fault {
            words.extend(["--fault".to_owned(), fault.clone()]);
        }
        words
    }
}

/// For the last round and the report, after the time is up.
const LAST_ROUND: Duration = Duration::from_secs(5 * 60);

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    debian::require_root("chaos")?;
    debian::install_missing()?;
    leak::adopt_orphans()?;
    let before = leak::traces()?;
    println!("==> building the shims");
    let mut names = shimwright_engines::shims();
    names.push(PROGRAM);
    let directory = cargo::build_binaries(&names)?;
    let passed = run(&directory, options)?;
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
    println!("==> chaos {}", SHORT.words().join(" "));
    let passed = run(directory, &SHORT)?;
    println!("  {} chaos", if passed { "ok     " } else { "FAILED " });
    Ok(Tally {
        passed: passed.into(),
        failed: (!passed).into(),
    })
}

/// Runs the program that tries faults with the shims of a directory, and says whether all went
/// well.
fn run(directory: &Path, options: &Options) -> Result<bool> {
    let cache = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    let mut chaos = Command::new(directory.join(PROGRAM));
    let all = shimwright_engines::ALL.iter();
    let all = all.map(|engine| directory.join(engine.shim));
    let shims = match &options.shims[..] {
        [] => all.collect(),
        some => some.to_vec(),
    };
    for shim in shims {
        chaos.arg("--shim").arg(shim);
    }
    chaos.args(options.words());
    chaos.env("SHIMWRIGHT_CACHE_DIR", cache.path());
    let deadline = Duration::from_secs(options.seconds) + LAST_ROUND;
    let finished = Process::spawn_as_is(chaos)?.finish(deadline)?;
    process::check_interrupt()?;
    Ok(finished.code == 0)
}
