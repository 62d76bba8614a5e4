//! Runs the tests one after the other, with the output and the filters of `cargo test`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use libtest_mimic::{Failed, Trial};
use shimwright_engines::DEFAULT;
use shimwright_testenv::containerd::{self, Containerd, Release};
use shimwright_testenv::error::{Context, Error, Result, error};
use shimwright_testenv::{debian, process};

use crate::cases::{self, Case};
use crate::stage::Stage;
use crate::{method, programs};

/// How long containerd and a shim may take to clean up after a task.
pub(crate) const CLEAN_UP: Duration = Duration::from_secs(5);

/// The directory of the shims under test, as for the other tests.
pub(crate) const SHIM_DIR: &str = "SHIMWRIGHT_SHIM_DIR";

/// The program that calls containerd as a kubelet does.
const CRI_CLIENT: &str = "SHIMWRIGHT_CRI_CLIENT";

/// End-to-end tests of the shims in SHIMWRIGHT_SHIM_DIR; `cargo xtask e2e` builds what they need.
#[derive(Debug, Parser)]
#[command(name = "shimwright-e2e")]
struct CommandLine {
    /// The only version of containerd to test with: 1.6, 1.7 or 2.x
    #[arg(long, value_name = "VERSION", value_parser = release)]
    containerd: Option<Release>,
    /// Test another runtime, to tell a fault of the tests from one of a shim
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Run CPython, QuickJS, Ruby and others on every engine instead
    #[arg(long)]
    programs: bool,
    /// Print which test shows each method of the Task service, or with --programs which of them
    /// runs on which engine
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    harness: libtest_mimic::Arguments,
}

fn release(text: &str) -> std::result::Result<Release, String> {
    Release::parse(text).map_err(|err| err.to_string())
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    match run(CommandLine::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "somebody asks for a table")]
fn run(mut line: CommandLine) -> Result<ExitCode> {
    if line.markdown {
        let table = if line.programs {
            programs::table()
        } else {
            method::table()?
        };
        print!("{table}");
        return Ok(ExitCode::SUCCESS);
    }
    process::catch_interrupts()?;
    // A containerd, its images and its network are shared.
    line.harness.test_threads = Some(1);
    let harness = &line.harness;
    if !harness.list {
        debian::require_root("the end-to-end tests")?;
    }
    Ok(if line.programs {
        programs::run(harness)?
    } else {
        let setup = Setup::new(&line)?;
        let suite = Arc::new(Suite::new(setup));
        libtest_mimic::run(harness, suite.trials(&line)).exit_code()
    })
}

/// What all stages have in common.
struct Setup {
    shims: Option<PathBuf>,
    runtime: String,
    cri: PathBuf,
    tools: PathBuf,
}

impl Setup {
    /// Downloads what is needed, unless the tests are only listed.
    fn new(line: &CommandLine) -> Result<Self> {
        let listed = line.harness.list;
        let given = |name: &str| match std::env::var_os(name) {
            Some(path) => Ok(PathBuf::from(path)),
            None if listed => Ok(PathBuf::new()),
            None => Err(error!("{name} is not set: run `cargo xtask e2e`")),
        };
        let shims = match &line.runtime {
            None => Some(given(SHIM_DIR)?),
            Some(_) => None,
        };
        let cri = given(CRI_CLIENT)?;
        let tools = if listed {
            PathBuf::new()
        } else {
            for release in releases(line) {
                containerd::binaries(release)?;
            }
            containerd::tools()?
        };
        let runtime = line.runtime.as_deref();
        Ok(Self {
            shims,
            runtime: runtime.unwrap_or(DEFAULT.runtime).to_owned(),
            cri,
            tools,
        })
    }

    fn stage(&self, release: Release) -> Result<Stage> {
        let runc = self.tools.join("usr/sbin");
        let shims = self.shims.iter().map(PathBuf::as_path);
        let path: Vec<_> = shims.chain([runc.as_path()]).collect();
        let containerd = Containerd::start_for_pods(release, &path)?;
        let busybox = self.tools.join("bin/busybox");
        Stage::new(
            containerd,
            &self.runtime,
            self.shims.is_some(),
            &busybox,
            &self.cri,
        )
    }
}

fn releases(line: &CommandLine) -> Vec<Release> {
    let all = Release::ALL.into_iter();
    all.filter(|release| line.containerd.is_none_or(|only| only == *release))
        .collect()
}

/// Where the cases run: on one stage after the other.
struct Suite {
    setup: Setup,
    /// That of the last case, unless it has left something there.
    stage: Mutex<Option<Stage>>,
}

impl Suite {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            stage: Mutex::new(None),
        }
    }

    /// Every case on every containerd that is asked for.
    fn trials(self: Arc<Self>, line: &CommandLine) -> Vec<Trial> {
        let ours = line.runtime.is_none();
        let mut trials = Vec::new();
        for release in releases(line) {
            for case in cases::all().filter(|case| case.runs_on(release, ours)) {
                let suite = Arc::clone(&self);
                let run = move || suite.run(case, release).map_err(Failed::from);
                trials.push(Trial::test(case.name, run).with_kind(format!("containerd {release}")));
            }
        }
        trials
    }

    /// Runs a case, and keeps the stage unless something is left on it.
    fn run(&self, case: &'static Case, release: Release) -> Result<()> {
        process::check_interrupt()?;
        let mut place = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let last = place.take();
        let kept = last.filter(|stage| stage.containerd().release() == release);
        let mut stage = match kept {
            Some(stage) => stage,
            None => self
                .setup
                .stage(release)
                .context("start containerd and import the images")?,
        };
        stage.enter(case.name);
        let result = (case.run)(&mut stage);
        let clean = stage.containerd().ground().await_clean(CLEAN_UP);
        process::check_interrupt()?;
        if clean.is_ok() {
            *place = Some(stage);
        }
        let problems = [result.err(), clean.err()].into_iter().flatten();
        let problems: Vec<_> = problems.map(|problem| problem.to_string()).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::new(problems.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
