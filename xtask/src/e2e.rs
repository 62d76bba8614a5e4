//! `cargo xtask e2e` and `cargo xtask programs`: the tests of `crates/shimwright-e2e`, with what they
//! need built.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use shimwright_testenv::debian;
use shimwright_testenv::error::{Result, ensure, error};
use shimwright_testenv::process;

use crate::cargo;
use crate::tally::Tally;
use crate::wasmedge;

const RUNNER: &str = "shimwright-e2e";

/// For all tests with every containerd.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);

/// The variable with the directory of the shims under test.
const SHIM_DIR: &str = "SHIMWRIGHT_SHIM_DIR";

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    if args == ["--methods"] {
        return markdown(&[]);
    }
    let selection = Selection::parse(args)?;
    debian::require_root("e2e")?;
    debian::install_missing()?;
    let suite = Suite::build(selection.runtime.is_none())?;
    let tally = suite.cases(&selection.words())?;
    println!("\n{tally}");
    ensure!(!tally.is_empty(), "no test has such a name");
    Ok(tally.exit_code())
}

/// `cargo xtask programs`.
pub(crate) fn programs(args: &[String]) -> Result<ExitCode> {
    let only = match args {
        [] => None,
        [option] if option == "--markdown" => return markdown(&["--programs"]),
        [option, text] if option == "--only" => Some(text.as_str()),
        _ => {
            return Err(error!("programs takes --only TEXT, --markdown or nothing"));
        }
    };
    debian::require_root("programs")?;
    debian::install_missing()?;
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

/// What the user asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Selection {
    containerd: Option<String>,
    only: Option<String>,
    runtime: Option<String>,
}

impl Selection {
    fn parse(args: &[String]) -> Result<Self> {
        let mut selection = Self::default();
        let mut args = args.iter();
        while let Some(option) = args.next() {
            let value = args
                .next()
                .ok_or_else(|| error!("{option} needs a value"))?;
            let place = match option.as_str() {
                "--containerd" => &mut selection.containerd,
                "--only" => &mut selection.only,
                "--runtime" => &mut selection.runtime,
                unknown => {
                    return Err(error!(
                        "e2e does not know {unknown}, but --containerd, --only and --runtime"
                    ));
                }
            };
            *place = Some(value.clone());
        }
        Ok(selection)
    }

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
            let built =
                cargo::build_binaries(&[&shimwright_engines::shims()[..], &[RUNNER]].concat())?;
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

    fn words(words: &[&str]) -> Result<Vec<String>> {
        let selection = Selection::parse(&crate::words(words))?;
        Ok(selection.words().into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn the_runner_is_told_what_is_chosen() {
        assert!(words(&[]).unwrap().is_empty());
        let some = words(&["--only", "a trap", "--containerd", "1.7"]).unwrap();
        assert_eq!(some, ["--containerd", "1.7", "a trap"]);
        assert!(words(&["--only"]).is_err());
        assert!(words(&["--all", "x"]).is_err());
    }
}
