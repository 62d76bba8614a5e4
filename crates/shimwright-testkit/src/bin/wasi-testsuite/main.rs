//! Runs directories of tests in the conventions of WebAssembly/wasi-testsuite, each test as a
//! container of a real shim: `cargo xtask wasi-testsuite` calls this for each engine.
#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks to its user on stdout"
)]

mod http;
mod run;
mod spec;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use shimwright_testkit::{Containerd, Result};

use run::Outcome;
use spec::Spec;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wasi-testsuite: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Each NAME.wasm in a DIRECTORY is a test. NAME.json says what it is given and what must come of it,
/// as WebAssembly/wasi-testsuite specifies.
#[derive(Debug, Parser)]
#[command(name = "wasi-testsuite")]
struct Arguments {
    /// The shim that runs them
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    shim: Option<PathBuf>,
    /// Print their names
    #[arg(long)]
    list: bool,
    /// Those whose names hold this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Directories with .wasm files
    #[arg(value_name = "DIRECTORY", required = true)]
    directories: Vec<PathBuf>,
}

/// Runs the tests, or lists them, and says whether none has failed.
fn run(arguments: &Arguments) -> Result<bool> {
    let tests = tests(arguments)?;
    if arguments.list {
        for test in &tests {
            println!("{}", test.title());
        }
        return Ok(true);
    }
    let shim = arguments.shim.as_deref().ok_or("--shim is missing")?;
    run_all(shim, &tests)
}

/// A `.wasm` file, and what belongs to it.
#[derive(Debug)]
struct Test {
    /// The directory as the user has named it.
    suite: PathBuf,
    name: String,
    wasm: PathBuf,
    spec: Spec,
}

impl Test {
    fn title(&self) -> String {
        format!("{}/{}", self.suite.display(), self.name)
    }
}

/// The tests of all directories. All specifications are read before anything is run, so that a
/// mistake in the last one does not wait until then.
fn tests(arguments: &Arguments) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for suite in &arguments.directories {
        let before = tests.len();
        let entries =
            fs::read_dir(suite).map_err(|error| format!("list {}: {error}", suite.display()))?;
        for entry in entries {
            let wasm = entry?.path();
            let is_test = wasm
                .extension()
                .is_some_and(|extension| extension == "wasm");
            let Some(name) = wasm.file_stem().filter(|_| is_test) else {
                continue;
            };
            let name = name.to_string_lossy().into_owned();
            let spec = Spec::read(&wasm.with_extension("json"))?;
            tests.push(Test {
                suite: suite.clone(),
                name,
                wasm,
                spec,
            });
        }
        if tests.len() == before {
            return Err(format!("{} holds no .wasm file", suite.display()).into());
        }
    }
    if let Some(text) = &arguments.only {
        tests.retain(|test| test.title().contains(text));
        if tests.is_empty() {
            return Err(format!("no test has a name with {text:?} in it").into());
        }
    }
    tests.sort_by(|a, b| (&a.suite, &a.name).cmp(&(&b.suite, &b.name)));
    Ok(tests)
}

/// Runs the tests one after another, and says whether none has failed.
fn run_all(shim: &Path, tests: &[Test]) -> Result<bool> {
    let begin = Instant::now();
    let containerd = Containerd::with_shim(shim)?;
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for (number, test) in tests.iter().enumerate() {
        let outcome = run::test(&containerd, &format!("t{number}"), test);
        let outcome = outcome.unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        let title = test.title();
        match outcome {
            Outcome::Passed => {
                println!("  ok       {title}");
                passed += 1;
            }
            Outcome::Failed(reason) => {
                println!("  FAILED   {title}");
                println!("      {}", reason.trim_end().replace('\n', "\n      "));
                failed += 1;
            }
            Outcome::NotRun(reason) => {
                println!("  not run  {title}: {reason}");
                not_run += 1;
            }
        }
    }
    containerd.wait_until_clean()?;
    println!(
        "{passed} passed, {failed} failed, {not_run} not run in {:.1} s",
        begin.elapsed().as_secs_f32()
    );
    Ok(failed == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_shim_is_needed_unless_tests_are_listed() {
        Arguments::command().debug_assert();
        let parse = |words: &[&str]| Arguments::try_parse_from([&["x"], words].concat());
        assert!(parse(&["directory"]).is_err());
        assert!(parse(&["--list", "directory"]).unwrap().shim.is_none());
        assert!(parse(&["--shim", "a"]).is_err());
    }
}
