//! `cargo xtask compare`: the engines on the sample programs or on a program of the user's, as a
//! table and as a page with plots.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::package::CPYTHON;
use shimwright_testenv::process::Process;

use crate::cargo;
use crate::wasmedge;

const PROGRAM: &str = "compare";

/// A large program is compiled several times with each engine.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);

/// How long it may take to clean up when it is interrupted.
const GRACE: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Eq)]
struct Options {
    engines: Vec<&'static Engine>,
    output: PathBuf,
    quick: bool,
    /// A program of the user's and its arguments.
    app: Option<(PathBuf, Vec<String>)>,
}

impl Options {
    /// Options come before the program, because what follows it is its own.
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            engines: Vec::new(),
            output: "compare.html".into(),
            quick: false,
            app: None,
        };
        let mut args = args.iter();
        while let Some(word) = args.next() {
            let mut value = || args.next().ok_or_else(|| error!("{word} needs a value"));
            match word.as_str() {
                "--engine" => {
                    options.engines.push(engine(value()?)?);
                }
                "--output" => options.output = value()?.into(),
                "--quick" => options.quick = true,
                unknown if unknown.starts_with('-') => {
                    return Err(error!(
                        "compare does not know {unknown}, but --engine, --output and --quick, \
                         before the program"
                    ));
                }
                app => {
                    options.app = Some((app.into(), args.by_ref().cloned().collect()));
                }
            }
        }
        if options.engines.is_empty() {
            options.engines = shimwright_engines::ALL.iter().collect();
        }
        Ok(options)
    }
}

/// The row of an engine that the user names.
pub(crate) fn engine(name: &str) -> Result<&'static Engine> {
    shimwright_engines::by_name(name).ok_or_else(|| {
        let names: Vec<_> = shimwright_engines::ALL.iter().map(|row| row.name).collect();
        error!("there is no engine {name}, but {}", names.join(", "))
    })
}

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let options = Options::parse(args)?;
    if let Some((app, _)) = &options.app {
        // Before a long build, because the path may be mistyped.
        ensure!(app.is_file(), "there is no {}", app.display());
    }
    debian::require_root("compare")?;
    debian::install_missing()?;
    println!("==> building the shims");
    let mut names: Vec<_> = options.engines.iter().map(|engine| engine.shim).collect();
    names.push(PROGRAM);
    let built = cargo::build_binaries(&names)?;

    let mut compare = Command::new(built.join(PROGRAM));
    for engine in &options.engines {
        // The shared libraries may not be to be had.
        let found = if engine.has_libraries {
            wasmedge::build().map(drop)
        } else {
            Ok(())
        };
        match found {
            Ok(()) => {
                let path = built.join(engine.shim);
                compare
                    .arg("--engine")
                    .arg(format!("{}={}", engine.name, path.display()));
            }
            Err(reason) => {
                compare.args(["--absent", &format!("{}={reason}", engine.name)]);
            }
        }
    }
    let files = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    if let Some((app, words)) = &options.app {
        compare.arg("--app").arg(app);
        compare.args(words.iter().flat_map(|word| ["--app-arg", word]));
    } else {
        let python = files.path().join("python.wasm");
        fs::write(&python, CPYTHON.read()?).context("write CPython down")?;
        compare.arg("--python").arg(python);
    }
    if options.quick {
        compare.arg("--quick");
    }
    compare.arg("--output").arg(&options.output);
    let line = ["cargo", "xtask", "compare"].map(str::to_owned);
    compare
        .arg("--command")
        .arg([&line, args].concat().join(" "));
    let finished = Process::spawn_as_is(compare)?.finish_or_ask(DEADLINE, GRACE)?;
    ensure!(
        finished.code == 0,
        "the comparison ended with {}",
        finished.code
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(&crate::words(words))
    }

    fn names(options: &Options) -> Vec<&'static str> {
        options.engines.iter().map(|engine| engine.name).collect()
    }

    fn all() -> Vec<&'static str> {
        let engines = shimwright_engines::ALL.iter();
        engines.map(|engine| engine.name).collect()
    }

    #[test]
    fn every_engine_is_compared_unless_some_are_named() {
        assert_eq!(names(&parse(&[]).unwrap()), all());
        let some = parse(&["--engine", "wasmi", "--engine", "wasmer"]).unwrap();
        assert_eq!(names(&some), ["wasmi", "wasmer"]);
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        let options = parse(&["--output", "x.html", "app.wasm", "--engine", "b"]).unwrap();
        let words = ["--engine", "b"].map(str::to_owned).into();
        assert_eq!(options.app, Some(("app.wasm".into(), words)));
        assert_eq!(options.output, PathBuf::from("x.html"));
        assert_eq!(names(&options), all());
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        for (words, name) in [
            (&["--nonsense"][..], "--nonsense"),
            (&["--engine"], "--engine"),
            (&["--engine", "v8"], "v8"),
            (&["--output"], "--output"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
