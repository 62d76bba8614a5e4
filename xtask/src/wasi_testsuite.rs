//! `cargo xtask wasi-testsuite`: directories in the conventions of WebAssembly/wasi-testsuite, each
//! test as a container of the real shims, one engine after another.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::Result;
use shimwright_testenv::leak;
use shimwright_testenv::process::Process;

use crate::cargo;
use crate::engine;
use crate::wasmedge;

/// The program that does it, of the testkit.
const RUNNER: &str = "wasi-testsuite";

/// For all tests on one engine.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directories with .wasm files
    #[arg(value_name = "DIRECTORY", required = true)]
    directories: Vec<PathBuf>,
    /// The only engine
    #[arg(long, value_name = "NAME", value_parser = engine::any())]
    engine: Option<&'static Engine>,
    /// The tests whose names hold this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print their names
    #[arg(long)]
    list: bool,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let engines = engine::or_all(options.engine.as_slice());
    if !options.list {
        debian::require_root("wasi-testsuite")?;
    }
    debian::install_missing()?;
    leak::adopt_orphans()?;
    println!("==> building the shims and the runner");
    let binaries = cargo::build_binaries(&[&shimwright_engines::shims()[..], &[RUNNER]].concat())?;
    if engines.iter().any(|engine| engine.has_libraries) && !options.list {
        wasmedge::build()?;
    }
    if options.list {
        return run(&binaries, None, options);
    }
    let mut outcome = ExitCode::SUCCESS;
    for engine in engines {
        println!("==> {}", engine.name);
        if run(&binaries, Some(engine), options)? != ExitCode::SUCCESS {
            outcome = ExitCode::FAILURE;
        }
    }
    Ok(outcome)
}

/// Runs the tests on an engine, or lists them.
fn run(binaries: &Path, engine: Option<&Engine>, options: &Options) -> Result<ExitCode> {
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
    if let Some(text) = &options.only {
        command.args(["--only", text]);
    }
    command.args(&options.directories);
    let code = Process::spawn_as_is(command)?.finish(DEADLINE)?.code;
    Ok(if code == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_needed() {
        let options = crate::parse::<Options>(&["a", "b", "--engine", "wasmi"]).unwrap();
        assert_eq!(options.directories, [Path::new("a"), Path::new("b")]);
        assert_eq!(options.engine.map(|engine| engine.name), Some("wasmi"));
        for words in [&[][..], &["--list"], &["--engine", "v8", "a"]] {
            assert!(crate::parse::<Options>(words).is_err(), "{words:?}");
        }
    }
}
