//! `cargo xtask vm`: tests of the shims, or `chaos`, in an emulated machine, whose control groups are
//! of version 2 only, and whose clock is nobody else's.

mod disk;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shimwright_engines::Engine;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Result, ensure, error};

use crate::cargo;
use crate::chaos;
use crate::tally::Tally;
use crate::wasmedge;

use disk::{Disk, PROGRAMS};

/// What is run if the user names no tests: all of one engine, and of the others what has to do with
/// cgroups: their files, and joining those of a container.
///
/// A test takes some ten times as long there: `cargo xtask attack` tries the attacks on all engines.
const DEFAULT: [&str; 3] = ["cgroup::", "join", "wasmi"];
/// Attacks that meet the cgroups, with an engine that compiles.
const COMPILING: [&str; 2] = [
    "attack::compile::compiling::wasmtime::",
    "attack::devices::wasmtime::",
];

/// Tests that cannot pass there: its kernel is Linux 6.1, and a file system in memory maps ids since 6.3.
const LEFT_OUT: [&str; 2] = [
    "mounts::wasmi::a_guest_runs_in_a_user_namespace",
    "mounts::wasmi::the_ids_of_an_image_and_of_volumes_are_mapped",
];

/// For all tests.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// For each fault at least once, whatever time is asked for.
const CHAOS_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Whether there is an emulated machine for what is built here.
const EMULATED: bool = cfg!(target_arch = "x86_64");

/// The faults that can be tried nowhere else. The others have bounds for real machines, which an
/// emulated one may miss.
const CLOCK: &str = "the clock jumps";

const CHAOS: &str = "chaos";
const TESTS: &str = "shim";

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The tests whose names hold one of these texts; by default those about cgroups, attacks, and
    /// all of one engine
    #[arg(value_name = "TEXT", conflicts_with = "chaos")]
    texts: Vec<String>,
    /// Run chaos there, where the clock may jump
    #[arg(long)]
    chaos: bool,
    #[command(flatten, next_help_heading = "Options of chaos")]
    faults: chaos::Options,
}

pub(crate) fn main(options: Options) -> Result<ExitCode> {
    ensure!(
        options.chaos || options.faults == chaos::Options::default(),
        "vm takes the options of chaos with --chaos only"
    );
    let work = Work::new(options);
    debian::require_root("vm")?;
    debian::install_missing()?;
    println!("==> building the shims and their tests");
    let built = build()?;
    wasmedge::build()?;
    let outcome = work.run(&built)?;
    Ok(ExitCode::from(
        u8::try_from(outcome.code).unwrap_or(u8::MAX),
    ))
}

/// The tests that `cargo xtask test` runs in an emulated machine.
pub(crate) fn test() -> Result<Tally> {
    run_tests(&[])
}

/// Runs tests with one of these texts in their names, or those of `cargo xtask test`, in an emulated
/// machine, and counts them.
pub(crate) fn run_tests(names: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    if !EMULATED {
        println!("==> no emulated machine: it is an x86-64 one");
        return Ok(tally);
    }
    println!("==> tests with cgroup v2 only");
    let outcome = Work::Tests(names.to_vec()).run(&build()?)?;
    for line in &outcome.lines {
        tally += Tally::reported(line).unwrap_or_default();
    }
    ensure!(
        tally.passed + tally.failed > 0,
        "no test has run in the emulated machine"
    );
    if outcome.code != 0 && tally.failed == 0 {
        println!(
            "the tests in the emulated machine ended with {} although none has failed",
            outcome.code
        );
        tally.failed += 1;
    }
    Ok(tally)
}

/// What the machine does.
#[derive(Debug, PartialEq, Eq)]
enum Work {
    /// Runs tests of the shims whose names have one of these texts.
    Tests(Vec<String>),
    /// Runs `chaos`, which may set the clock there.
    Chaos(chaos::Options),
}

impl Work {
    fn new(options: Options) -> Self {
        if options.chaos {
            Self::Chaos(options.faults)
        } else {
            Self::Tests(options.texts)
        }
    }

    fn run(&self, built: &[PathBuf]) -> Result<machine::Outcome> {
        ensure!(
            EMULATED,
            "the emulated machine is an x86-64 one, and this machine is not"
        );
        debian::install_command(machine::PROGRAM, machine::PACKAGE)?;
        let disk = Disk::make(&self.files(built)?, &self.command()?)?;
        machine::run(&disk, self.deadline())
    }

    /// Each file that the machine needs, and its place there.
    fn files(&self, built: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>> {
        let shims = cargo::directory_of(&shimwright_engines::shims(), built)?;
        let place = Path::new(PROGRAMS);
        let shim = |engine: &Engine| (shims.join(engine.shim), place.join(engine.shim));
        let mut files: Vec<_> = shimwright_engines::ALL.iter().map(shim).collect();
        // The WasmEdge shim looks for its libraries there.
        let libraries = shims.join("../lib");
        files.push((libraries, place.join("../lib")));
        let (program, path) = match self {
            Self::Tests(_) => (TESTS, test_program(built)?),
            Self::Chaos(..) => (CHAOS, cargo::directory_of(&[CHAOS], built)?.join(CHAOS)),
        };
        files.push((path, place.join(program)));
        Ok(files)
    }

    /// The command that the machine executes.
    fn command(&self) -> Result<Vec<String>> {
        let path = |name: &str| format!("/{PROGRAMS}/{name}");
        Ok(match self {
            Self::Tests(names) if names.is_empty() => {
                let names = DEFAULT.iter().map(|&name| name.to_owned());
                let names = names.chain(COMPILING.map(str::to_owned));
                let skip = |name: &str| ["--skip".to_owned(), name.to_owned()];
                let names = names.chain(LEFT_OUT.into_iter().flat_map(skip));
                std::iter::once(path(TESTS)).chain(names).collect()
            }
            Self::Tests(names) => std::iter::once(path(TESTS)).chain(names.clone()).collect(),
            Self::Chaos(options) => {
                let mut words = vec![path(CHAOS), "--clock".to_owned()];
                let all = shimwright_engines::ALL.iter();
                // What repeats a failure names one.
                let shims = match &options.shims[..] {
                    [] => all.map(|engine| path(engine.shim)).collect(),
                    some => some.iter().map(|shim| shim.display().to_string()).collect(),
                };
                let shims: Vec<String> = shims;
                words.extend(
                    shims
                        .into_iter()
                        .flat_map(|shim| ["--shim".to_owned(), shim]),
                );
                if options.fault.is_none() {
                    words.extend(["--fault", CLOCK].map(str::to_owned));
                }
                words.extend(options.words());
                words
            }
        })
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::Tests(_) => DEADLINE,
            Self::Chaos(options) => CHAOS_DEADLINE + Duration::from_secs(options.seconds),
        }
    }
}

/// Builds what goes into the machine, with the features of everything else.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    let mut args = vec![
        "build",
        "--release",
        "--workspace",
        "--all-features",
        "--test",
        TESTS,
        "--bin",
        CHAOS,
    ];
    let shims = shimwright_engines::shims();
    args.extend(shims.iter().flat_map(|name| ["--bin", name]));
    cargo::build(&args)
}

/// The executable of the shims' tests, in whose name cargo puts a number.
pub(crate) fn test_program(built: &[PathBuf]) -> Result<PathBuf> {
    let is_it = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.rsplit_once('-'));
        name.is_some_and(|(name, _)| name == TESTS)
    };
    let found = built.iter().find(is_it);
    found
        .cloned()
        .ok_or_else(|| error!("cargo has not built the tests of the shims"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> std::result::Result<Work, clap::Error> {
        crate::parse(words).map(Work::new)
    }

    #[test]
    fn without_a_name_the_machine_runs_the_default() {
        let command = parse(&[]).unwrap().command().unwrap();
        assert_eq!(command[0], "/usr/local/bin/shim");
        assert_eq!(command[1..=DEFAULT.len()], DEFAULT);
        assert!(command.contains(&COMPILING[0].to_owned()));
        let command = parse(&["stats", "b"]).unwrap().command().unwrap();
        assert_eq!(command[1..], ["stats", "b"]);
    }

    #[test]
    fn the_clock_is_set_in_the_machine_only() {
        let work = parse(&["--chaos", "--seconds", "5"]).unwrap();
        assert_eq!(work.deadline(), CHAOS_DEADLINE + Duration::from_secs(5));
        let command = work.command().unwrap();
        assert!(command.contains(&"--clock".to_owned()), "{command:?}");
        assert!(command.contains(&CLOCK.to_owned()), "{command:?}");
        assert!(command.ends_with(&["--seconds".to_owned(), "5".to_owned()]));
        // As a line for a failure says.
        let again = ["--chaos", "--shim", "/a", "--seconds", "0", "--fault", "b"];
        let command = parse(&again).unwrap().command().unwrap();
        assert_eq!(command[2..], again[1..]);
    }

    #[test]
    fn other_options_are_refused() {
        for wrong in [
            &["--exact"][..],
            &["--chaos", "--seconds", "x"],
            &["--chaos", "text"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
