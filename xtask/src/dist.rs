//! `cargo xtask dist DIRECTORY`: the shims as they are to be installed: optimised as a whole, with
//! their symbols in files of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result};
use shimwright_testenv::process;

use crate::cargo;
use crate::engine;
use crate::sizes;
use crate::wasmedge;

/// For one call of a tool that reads and writes one executable.
const TOOL_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where bin and lib are made
    directory: PathBuf,
    /// An engine, instead of all
    #[arg(long = "engine", value_name = "NAME", value_parser = engine::installed())]
    engines: Vec<&'static Engine>,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let prefix = std::path::absolute(&options.directory)?;
    let engines = match &options.engines[..] {
        [] => shimwright_engines::installed().collect(),
        some => some.to_vec(),
    };
    debian::install_missing()?;
    let names: Vec<_> = engines.iter().map(|engine| engine.name).collect();
    println!("==> building {}, which takes a while", names.join(", "));
    let mut build = vec!["build", "--profile", "dist", "--workspace"];
    build.extend(engines.iter().flat_map(|engine| ["--bin", engine.shim]));
    let built = cargo::build(&build)?;
    for engine in &engines {
        let path = cargo::directory_of(&[engine.shim], &built)?.join(engine.shim);
        install(&path, &prefix)?;
    }
    if engines.iter().any(|engine| engine.has_libraries) {
        wasmedge::install(&prefix)?;
    }
    println!("==> the shims are in {}", prefix.join("bin").display());
    for engine in engines {
        let path = prefix.join("bin").join(engine.shim);
        println!("  {}: {}", engine.name, sizes::told(sizes::of(&path)?));
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts an executable into `PREFIX/bin` and its symbols into `PREFIX/lib/debug/bin`, where
/// debuggers and profilers look for them if `PREFIX` is in their search path.
fn install(built: &Path, prefix: &Path) -> Result<()> {
    let name = built.file_name().unwrap_or_default();
    let [bin, debug] = ["bin", "lib/debug/bin"].map(|directory| prefix.join(directory));
    for directory in [&bin, &debug] {
        fs::create_dir_all(directory).context(format_args!("make {}", directory.display()))?;
    }
    let symbols = debug.join(name).with_extension("debug");
    // Beside it and then renamed: a shim of that name may be running.
    let new = bin.join(name).with_extension("new");
    tool("objcopy", &["--only-keep-debug".as_ref(), built, &symbols])?;
    let link = format!("--add-gnu-debuglink={}", symbols.display());
    tool(
        "objcopy",
        &["--strip-all".as_ref(), link.as_ref(), built, &new],
    )?;
    let installed = bin.join(name);
    fs::rename(&new, &installed).context(format_args!("write {}", installed.display()))
}

fn tool(program: &str, args: &[&Path]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    process::run(command, TOOL_DEADLINE)?.success()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_not_installed_is_refused() {
        let parse = crate::parse::<Options>;
        let one = parse(&["out", "--engine", "wasmer"]).unwrap();
        assert_eq!((one.engines.len(), one.engines[0].name), (1, "wasmer"));
        for words in [
            &[][..],
            &["--engine", "wasmer"],
            &["out", "--engine", "wasmi"],
            &["out", "wasmer"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
