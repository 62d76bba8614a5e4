//! `cargo xtask fuzz`: the targets in `fuzz/`, each for some seconds, by cargo-fuzz.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process;

use crate::cargo::{self, BUILD_DEADLINE};

/// The directory of the targets, below that of the workspace.
const DIRECTORY: &str = "fuzz";

const REMEDY: &str = "cargo-fuzz is not installed: `cargo install cargo-fuzz`";

const QUERY_DEADLINE: Duration = Duration::from_secs(60);

/// How long one input may take, in seconds.
const PATIENCE: &str = "-timeout=10";

#[derive(Debug, Args)]
pub(crate) struct Options {
    // libFuzzer takes 0 for ever.
    /// For each target
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The only one
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let targets = targets()?;
    if let Some(name) = &options.target {
        let known = targets.join(", ");
        ensure!(
            targets.contains(name),
            "there is no target {name}, but {known}"
        );
    }
    let version = process::run(cargo::cargo(&["fuzz", "--version"]), QUERY_DEADLINE);
    version
        .and_then(process::Finished::success)
        .map_err(|_| error!("{REMEDY}"))?;
    let is_chosen = |name: &&String| options.target.as_ref().is_none_or(|only| only == *name);
    for target in targets.iter().filter(is_chosen) {
        println!("==> {target}");
        run(target, options.seconds)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a target, first with what it begins with and what earlier runs have found. An input on which
/// it fails is below `fuzz/artifacts`.
fn run(target: &str, seconds: u64) -> Result<()> {
    let built = cargo::target_directory()?.join(DIRECTORY);
    let found = built.join("corpus").join(target);
    std::fs::create_dir_all(&found).context(format_args!("make {}", found.display()))?;
    // Sanitizers take a nightly toolchain, and core has `unsafe` in one file only.
    let mut command = cargo::cargo(&["fuzz", "run", "--fuzz-dir", DIRECTORY]);
    command.args(["--sanitizer", "none", "--target-dir"]);
    command.arg(&built).arg(target).arg(&found);
    command.arg(format!("{DIRECTORY}/corpus/{target}"));
    command.args(["--", PATIENCE, "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}"));
    process::show(command, BUILD_DEADLINE + Duration::from_secs(seconds))
}

/// The names of all targets, in order.
fn targets() -> Result<Vec<String>> {
    let directory = shimwright_testenv::workspace::root()
        .join(DIRECTORY)
        .join("fuzz_targets");
    let files = std::fs::read_dir(&directory);
    let files = files.context(format_args!("read {}", directory.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file
            .context(format_args!("read {}", directory.display()))?
            .path();
        names.extend(
            path.file_stem()
                .and_then(|name| name.to_str())
                .map(str::to_owned),
        );
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_ten_seconds_unless_told_otherwise() {
        let parse = crate::parse::<Options>;
        let all = parse(&[]).unwrap();
        assert_eq!((all.seconds, all.target), (10, None));
        let one = parse(&["--target", "uri", "--seconds", "300"]).unwrap();
        assert_eq!((one.seconds, one.target.as_deref()), (300, Some("uri")));
        for wrong in [&["--seconds", "0"][..], &["--seconds"], &["uri"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_has_something_to_begin_with() {
        let targets = targets().unwrap();
        assert!(targets.len() > 1);
        for target in targets {
            let corpus = shimwright_testenv::workspace::root()
                .join(DIRECTORY)
                .join("corpus")
                .join(&target);
            let files = std::fs::read_dir(&corpus).map_or(0, Iterator::count);
            assert_ne!(files, 0, "{target}");
        }
    }
}
