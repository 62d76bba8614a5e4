//! `cargo xtask compare`: the engines on the sample programs or on a program of the user's, as a
//! table and as a page with plots.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result, ensure};
use shimwright_testenv::package::CPYTHON;
use shimwright_testenv::process::Process;

use crate::cargo;
use crate::engine;
use crate::wasmedge;

const PROGRAM: &str = "compare";

/// A large program is compiled several times with each engine.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long it may take to clean up when it is interrupted.
const GRACE: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// An engine, instead of all
    #[arg(long = "engine", value_name = "NAME", value_parser = engine::any())]
    engines: Vec<&'static Engine>,
    /// The page with plots
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    output: PathBuf,
    /// Fewer samples of everything
    #[arg(long)]
    quick: bool,
    /// A program of yours and its arguments; without one the samples are run
    #[arg(value_name = "APP.WASM", trailing_var_arg = true)]
    app: Vec<PathBuf>,
}

pub(crate) fn main(options: Options) -> Result<ExitCode> {
    let engines = engine::or_all(&options.engines);
    if let Some(app) = options.app.first() {
        // Before a long build, because the path may be mistyped.
        ensure!(app.is_file(), "there is no {}", app.display());
    }
    debian::require_root("compare")?;
    debian::install_missing()?;
    println!("==> building the shims");
    let mut names: Vec<_> = engines.iter().map(|engine| engine.shim).collect();
    names.push(PROGRAM);
    let built = cargo::build_binaries(&names)?;

    let mut compare = Command::new(built.join(PROGRAM));
    for engine in &engines {
        add(&mut compare, engine, &built);
    }
    let files = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    if let Some((app, words)) = options.app.split_first() {
        compare.arg("--app").arg(app);
        for word in words {
            compare.arg("--app-arg").arg(word);
        }
    } else {
        let python = files.path().join("python.wasm");
        fs::write(&python, CPYTHON.read()?).context("write CPython down")?;
        compare.arg("--python").arg(python);
    }
    if options.quick {
        compare.arg("--quick");
    }
    compare.arg("--output").arg(&options.output);
    let words: Vec<_> = std::env::args().skip(1).collect();
    compare
        .arg("--command")
        .arg(format!("cargo xtask {}", words.join(" ")));
    let finished = Process::spawn_as_is(compare)?.finish_or_ask(DEADLINE, GRACE)?;
    ensure!(
        finished.code == 0,
        "the comparison ended with {}",
        finished.code
    );
    Ok(ExitCode::SUCCESS)
}

/// Adds an engine, or why it is not there: its shared libraries may not be to be had.
fn add(compare: &mut Command, engine: &Engine, built: &Path) {
    let found = if engine.has_libraries {
        wasmedge::build().map(drop)
    } else {
        Ok(())
    };
    let name = engine.name;
    match found {
        Ok(()) => {
            let path = built.join(engine.shim);
            compare.args(["--engine", &format!("{name}={}", path.display())]);
        }
        Err(reason) => {
            compare.args(["--absent", &format!("{name}={reason}")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> std::result::Result<Options, clap::Error> {
        crate::parse(words)
    }

    fn names(options: &Options) -> Vec<&'static str> {
        let engines = engine::or_all(&options.engines);
        engines.iter().map(|engine| engine.name).collect()
    }

    #[test]
    fn every_engine_is_compared_unless_some_are_named() {
        let all = names(&parse(&[]).unwrap());
        assert_eq!(all.len(), shimwright_engines::ALL.len());
        let some = parse(&["--engine", "wasmi", "--engine", "wasmer"]).unwrap();
        assert_eq!(names(&some), ["wasmi", "wasmer"]);
        assert!(parse(&["--engine", "v8"]).is_err());
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        let options = parse(&["--output", "x.html", "app.wasm", "--engine", "b"]).unwrap();
        assert_eq!(
            options.app,
            ["app.wasm", "--engine", "b"].map(PathBuf::from)
        );
        assert_eq!(options.output, PathBuf::from("x.html"));
        assert!(options.engines.is_empty());
    }
}
