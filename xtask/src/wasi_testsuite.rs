//! `cargo xtask wasi-testsuite`: directories in the conventions of WebAssembly/wasi-testsuite, each
//! test as a container of the real shims, one engine after another.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Result, ensure, error};
use shimwright_testenv::leak;
use shimwright_testenv::process::Process;

use crate::cargo;
use crate::compare;
use crate::wasmedge;

/// The program that does it, of the testkit.
const RUNNER: &str = "wasi-testsuite";

/// For all tests on one engine.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let arguments = Arguments::parse(args)?;
    if !arguments.list {
        debian::require_root("wasi-testsuite")?;
    }
    debian::install_missing()?;
    leak::adopt_orphans()?;
    println!("==> building the shims and the runner");
    let binaries = cargo::build_binaries(&[&shimwright_engines::shims()[..], &[RUNNER]].concat())?;
    if arguments.engines.iter().any(|engine| engine.has_libraries) && !arguments.list {
        wasmedge::build()?;
    }
    if arguments.list {
        return run(&binaries, None, &arguments);
    }
    let mut outcome = ExitCode::SUCCESS;
    for engine in &arguments.engines {
        println!("==> {}", engine.name);
        if run(&binaries, Some(engine), &arguments)? != ExitCode::SUCCESS {
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}

/// Runs the tests on an engine, or lists them.
fn run(binaries: &Path, engine: Option<&Engine>, arguments: &Arguments) -> Result<ExitCode> {
    let cache = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
    let mut command = Command::new(binaries.join(RUNNER));
    command.env("SHIMWRIGHT_CACHE_DIR", cache.path());
    match engine {
        Some(engine) => {
            command.arg("--shim").arg(binaries.join(engine.shim));
        }
        None => {
            command.arg("--list");
        }
    }
    if let Some(text) = &arguments.only {
        command.args(["--only", text]);
    }
    command.args(&arguments.directories);
    let code = Process::spawn_as_is(command)?.finish(DEADLINE)?.code;
    Ok(if code == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    engines: Vec<&'static Engine>,
    list: bool,
    only: Option<String>,
    directories: Vec<PathBuf>,
}

impl Arguments {
    fn parse(args: &[String]) -> Result<Self> {
        let mut arguments = Self {
            engines: shimwright_engines::ALL.iter().collect(),
            list: false,
            only: None,
            directories: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(word) = args.next() {
            let mut value = || args.next().ok_or_else(|| error!("{word} needs a value"));
            match word.as_str() {
                "--list" => arguments.list = true,
                "--only" => arguments.only = Some(value()?.clone()),
                "--engine" => {
                    arguments.engines = vec![compare::engine(value()?)?];
                }
                option if option.starts_with('-') => {
                    return Err(error!(
                        "wasi-testsuite does not know {option}, but --engine, --only and --list"
                    ));
                }
                directory => arguments.directories.push(directory.into()),
            }
        }
        ensure!(
            !arguments.directories.is_empty(),
            "wasi-testsuite needs a directory with .wasm files"
        );
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments> {
        Arguments::parse(&crate::words(words))
    }

    #[test]
    fn all_engines_are_the_default() {
        let arguments = parse(&["a", "b"]).unwrap();
        assert_eq!(arguments.engines.len(), 4);
        assert_eq!(arguments.directories, [Path::new("a"), Path::new("b")]);
        let one = parse(&["--engine", "wasmi", "a", "--list"]).unwrap();
        assert_eq!((one.engines.len(), one.list), (1, true));
    }

    #[test]
    fn mistakes_are_errors() {
        for words in [
            &[][..],
            &["--list"],
            &["--engine", "v8", "a"],
            &["--enigne", "wasmi", "a"],
            &["a", "--only"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
