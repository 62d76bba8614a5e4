//! `cargo xtask e2e` and `cargo xtask programs`: the tests of `crates/shimwright-e2e`, with what they
//! need built.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_testenv::containerd::Release;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Result, ensure};
use shimwright_testenv::process;

use crate::cargo;
use crate::tally::Tally;
use crate::wasmedge;

const RUNNER: &str = "shimwright-e2e";

/// The shim of the example that runs applications.
const PIPELINE: &str = "containerd-shim-pipeline-v1";

/// For all tests with every containerd.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);

/// The variable with the directory of the shims under test.
const SHIM_DIR: &str = "SHIMWRIGHT_SHIM_DIR";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The only version of containerd to test with: 1.6, 1.7 or 2.x
    #[arg(long, value_name = "VERSION", value_parser = version)]
    containerd: Option<String>,
    /// The tests whose names hold this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Another runtime, for the tests that any passes: to tell a fault of theirs from one of a shim
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Print which of them shows each method of the Task service
    #[arg(long, exclusive = true)]
    methods: bool,
}

fn version(text: &str) -> std::result::Result<String, String> {
    let release = Release::parse(text);
    release
        .map(|_| text.to_owned())
        .map_err(|err| err.to_string())
}

impl Options {
    /// The same for the runner.
    fn words(&self) -> Vec<&str> {
        let options = [
            ("--containerd", &self.containerd),
            ("--runtime", &self.runtime),
        ];
        let options = options
            .into_iter()
            .filter_map(|(name, value)| Some([name, value.as_deref()?]));
        let only = self.only.iter().map(String::as_str);
        options.flatten().chain(only).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProgramOptions {
    /// Those whose names, such as `Ruby 3.2 on Wasmer`, hold this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print which of them runs on which engine
    #[arg(long, exclusive = true)]
    markdown: bool,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    if options.methods {
        return markdown(&[]);
    }
    debian::require_root("e2e")?;
    debian::install_missing()?;
    let suite = Suite::build(options.runtime.is_none())?;
    let tally = suite.cases(&options.words())?;
    println!("\n{tally}");
    ensure!(!tally.is_empty(), "no test has such a name");
    Ok(tally.exit_code())
}

/// `cargo xtask programs`.
pub(crate) fn programs(options: &ProgramOptions) -> Result<ExitCode> {
    if options.markdown {
        return markdown(&["--programs"]);
    }
    debian::require_root("programs")?;
    debian::install_missing()?;
    let only = options.only.as_deref();
    let tally = Suite::build(true)?.programs(only)?;
    println!("\n{tally}");
    ensure!(
        !tally.is_empty() || only.is_none(),
        "no program and no engine has such a name"
    );
    Ok(tally.exit_code())
}

/// Prints a table for the documentation.
fn markdown(options: &[&str]) -> Result<ExitCode> {
    let mut command = Command::new(cargo::build_binaries(&[RUNNER])?.join(RUNNER));
    command.arg("--markdown").args(options);
    process::show(command, Duration::from_secs(60))?;
    Ok(ExitCode::SUCCESS)
}

/// The runner and what it needs.
pub(crate) struct Suite {
    runner: PathBuf,
    cri_client: PathBuf,
    shims: Option<PathBuf>,
}

impl Suite {
    /// Builds all of it, with the shims unless others are given or none are needed.
    fn build(with_shims: bool) -> Result<Self> {
        let given = std::env::var_os(SHIM_DIR).map(PathBuf::from);
        println!("==> building the shims and their tests");
        let built = if with_shims && given.is_none() {
            let shims = shimwright_engines::shims();
            let built = cargo::build_binaries(&[&shims[..], &[PIPELINE, RUNNER]].concat())?;
            wasmedge::build()?;
            built
        } else {
            cargo::build_binaries(&[RUNNER])?
        };
        Ok(Self {
            runner: built.join(RUNNER),
            cri_client: cargo::build_cri_client()?,
            shims: with_shims.then(|| given.unwrap_or(built)),
        })
    }

    /// That of a directory with everything that cargo builds.
    pub(crate) fn built_in(directory: &Path) -> Result<Self> {
        Ok(Self {
            runner: directory.join(RUNNER),
            cri_client: cargo::build_cri_client()?,
            shims: Some(directory.to_owned()),
        })
    }

    /// Runs the tests that arguments for the runner choose.
    pub(crate) fn cases(&self, args: &[&str]) -> Result<Tally> {
        println!("==> end-to-end tests");
        let mut command = self.command();
        command.args(args);
        Tally::of(command, DEADLINE)
    }

    /// Runs the programs of others, or those whose names hold a text.
    pub(crate) fn programs(&self, only: Option<&str>) -> Result<Tally> {
        println!("==> programs of others");
        let mut command = self.command();
        command.arg("--programs").args(only);
        Tally::of(command, DEADLINE)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.runner);
        command.env("SHIMWRIGHT_CRI_CLIENT", &self.cri_client);
        if let Some(shims) = &self.shims {
            command.env(SHIM_DIR, shims);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        let options = crate::parse::<Options>(words).ok()?;
        Some(options.words().into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn the_runner_is_told_what_is_chosen() {
        assert!(words(&[]).unwrap().is_empty());
        let some = words(&["--only", "a trap", "--containerd", "1.7"]).unwrap();
        assert_eq!(some, ["--containerd", "1.7", "a trap"]);
        assert!(words(&["--only"]).is_none());
        assert!(words(&["--containerd", "1.5"]).is_none());
    }
}
