//! `cargo xtask dist DIRECTORY`: the shims as they are to be installed: optimised as a whole, with
//! their symbols in files of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result, error};
use shimwright_testenv::process;

use crate::cargo;
use crate::sizes;
use crate::wasmedge;

/// For one call of a tool that reads and writes one executable.
const TOOL_DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let (prefix, engines) = parse(args)?;
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
        wasmedge::main(&["--prefix".to_owned(), prefix.display().to_string()])?;
    }
    println!("==> the shims are in {}", prefix.join("bin").display());
    for engine in engines {
        let path = prefix.join("bin").join(engine.shim);
        println!("  {}: {}", engine.name, sizes::told(sizes::of(&path)?));
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(args: &[String]) -> Result<(PathBuf, Vec<&'static Engine>)> {
    const FORM: &str = "dist takes DIRECTORY [--engine wasmtime|wasmer|wasmedge]...";
    let (prefix, rest) = args.split_first().ok_or_else(|| error!("{FORM}"))?;
    if prefix.starts_with('-') {
        return Err(error!("{FORM}"));
    }
    let mut engines = Vec::new();
    for pair in rest.chunks(2) {
        let [option, name] = pair else {
            return Err(error!("{FORM}"));
        };
        let known = shimwright_engines::installed().find(|engine| engine.name == name);
        match known.filter(|_| option == "--engine") {
            Some(engine) => engines.push(engine),
            None => return Err(error!("{FORM}")),
        }
    }
    if engines.is_empty() {
        engines = shimwright_engines::installed().collect();
    }
    Ok((std::path::absolute(prefix)?, engines))
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

    fn parsed(words: &[&str]) -> Result<(PathBuf, Vec<&'static Engine>)> {
        parse(
            &words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn all_engines_are_built_unless_some_are_named() {
        let (prefix, engines) = parsed(&["/usr/local"]).unwrap();
        assert_eq!(
            (prefix.as_path(), engines.len()),
            (
                Path::new("/usr/local"),
                shimwright_engines::installed().count()
            )
        );
        let (_, engines) = parsed(&["out", "--engine", "wasmer"]).unwrap();
        assert_eq!((engines.len(), engines[0].name), (1, "wasmer"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            &[][..],
            &["--engine", "wasmer"],
            &["out", "--engine"],
            &["out", "--engine", "v8"],
            &["out", "wasmer", "x"],
        ] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
