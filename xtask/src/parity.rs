//! `cargo xtask parity`: OCI specs with a shim and with runc, and what differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_testenv::error::{Context, Result, ensure};
use shimwright_testenv::process::{self, Process};
use shimwright_testenv::{containerd, debian, leak, workspace};

use crate::cargo;
use crate::tally::Tally;

/// For all cases, once the programs are built.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// The program that tries the cases, and the one that they run.
pub(crate) const PROGRAM: &str = "parity";
pub(crate) const PROBE: &str = "parity-probe";

/// The shim of an engine that takes little time to build.
const SHIM: &str = "containerd-shim-wasmi-v1";

/// The shim that `cargo xtask test` compares: one is enough for Linux programs.
pub(crate) const TESTED: &str = "containerd-shim-wasmtime-v1";

/// What is generated.
const PAGE: &str = "docs/parity.md";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The cases whose names hold this text
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// A shim instead of that of wasmi
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// Only print the names of the cases
    #[arg(long)]
    list: bool,
    /// Only write docs/parity.md
    #[arg(long, exclusive = true)]
    write: bool,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    if options.write {
        return write();
    }
    debian::require_root("parity")?;
    debian::install_missing()?;
    leak::adopt_orphans()?;
    let mut names = vec![PROGRAM, PROBE];
    if options.shim.is_none() {
        names.push(SHIM);
    }
    println!("==> building the programs");
    let directory = cargo::build_binaries(&names)?;
    let shim = options.shim.clone();
    let shim = shim.unwrap_or_else(|| directory.join(SHIM));
    let mut words = options.texts.clone();
    if options.list {
        words.push("--list".to_owned());
    }
    let finished = Process::spawn_as_is(command(&directory, &shim, &words)?)?.finish(DEADLINE)?;
    process::check_interrupt()?;
    Ok(ExitCode::from(
        u8::try_from(finished.code).unwrap_or(u8::MAX),
    ))
}

/// Writes the page of what is compared and what may differ.
fn write() -> Result<ExitCode> {
    let directory = cargo::build_binaries(&[PROGRAM])?;
    let mut command = Command::new(directory.join(PROGRAM));
    command.arg("--page");
    let page = process::run(command, Duration::from_secs(60))?.success()?;
    let path = workspace::root().join(PAGE);
    fs::write(&path, page).context(format_args!("write {}", path.display()))?;
    println!("==> wrote {PAGE}");
    Ok(ExitCode::SUCCESS)
}

/// Every case, as part of all tests.
pub(crate) fn test(directory: &Path, shim: &str) -> Result<Tally> {
    println!("==> the same specs with {shim} and with runc");
    let command = command(directory, &directory.join(shim), &[])?;
    Tally::of_some(command, DEADLINE)
}

/// The program with what it needs.
fn command(directory: &Path, shim: &Path, words: &[String]) -> Result<Command> {
    ensure!(shim.is_file(), "there is no shim {}", shim.display());
    let mut command = Command::new(directory.join(PROGRAM));
    command.arg("--shim").arg(shim);
    command.arg("--runc").arg(debian::newest_runc()?);
    command.arg("--probe").arg(directory.join(PROBE));
    let busybox = containerd::tools()?.join("bin/busybox");
    command.arg("--busybox").arg(busybox);
    // A container is waited for most of the time.
    command.args(["--test-threads", "2"]).args(words);
    Ok(command)
}
