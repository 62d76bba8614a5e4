//! The tests that every shim has to pass, with the shim of a third party: `--shim PATH`.
//!
//! Without one it tests itself, with the shim of wasmi under another name and path.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, unused_imports, reason = "tests of one engine are left out")]

mod attack;
mod binary;
mod cache;
mod cgroup;
mod common;
mod crash;
mod exec;
mod failures;
mod hooks;
mod http;
mod kill;
mod lifecycle;
mod limits;
mod linux;
mod logger;
mod many;
mod options;
mod posture;
mod service;
mod shared;
mod start;
mod stdio;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::OnceLock;

use clap::Parser;
use libtest_mimic::{Arguments, Failed, Trial};
use shimwright_engines::{Engine, Execution};
use shimwright_testkit::{Containerd, SHIM_DIR_VARIABLE};

use common::{end, finish, lives, refused, run, running, signal, started, time};

/// Tests the shim of an engine that is not in this repository. Root is needed.
#[derive(Debug, Parser)]
#[command(name = "third-party")]
struct CommandLine {
    /// The shim, whose file has a name such as containerd-shim-mine-v1
    #[arg(long, value_name = "PATH")]
    shim: Option<PathBuf>,
    /// The name that the shim was given in `Shim::new`, if it is not that of its file
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The engine has a precompiler: also run the tests of compiling
    #[arg(long)]
    compiles: bool,
    /// A limit that the engine enforces, as the node's configuration calls it
    #[arg(long = "limit", value_name = "KEY")]
    limits: Vec<String>,
    /// A case of the conformance suite that is a gap of the engine
    #[arg(long = "gap", value_name = "CASE")]
    gaps: Vec<String>,
    #[command(flatten)]
    harness: Arguments,
}

/// The shim under test.
struct Subject {
    path: PathBuf,
    /// As the row of an engine of this repository.
    engine: Engine,
}

static SUBJECT: OnceLock<Subject> = OnceLock::new();

/// A test of any shim.
struct Test {
    module: &'static str,
    name: &'static str,
    /// Whether it is about compiling ahead of time.
    compiles: bool,
    run: fn(&str),
}

inventory::collect!(Test);

/// Registers each function.
macro_rules! for_each_engine {
    ($($name:ident)*) => {
        $(crate::register!($name, false);)*
    };
}
use for_each_engine;

/// The same for tests of compiling.
macro_rules! for_each_compiler {
    ($($name:ident)*) => {
        $(crate::register!($name, true);)*
    };
}
use for_each_compiler;

macro_rules! register {
    ($name:ident, $compiles:literal) => {
        inventory::submit! {
            crate::Test {
                module: module_path!(),
                name: stringify!($name),
                compiles: $compiles,
                run: $name,
            }
        }
    };
}
use register;

/// What the engine of the shim can do.
fn engine(_shim: &str) -> &'static Engine {
    &SUBJECT.get().unwrap().engine
}

/// A containerd whose runtime is the shim.
fn containerd(_name: &str) -> Containerd {
    let subject = SUBJECT.get().unwrap();
    Containerd::with_shim(&subject.path).unwrap_or_else(|error| panic!("{error}"))
}

fn main() -> ExitCode {
    let command = CommandLine::parse();
    let Some(path) = &command.shim else {
        return libtest_mimic::run(&command.harness, itself()).exit_code();
    };
    match subject(&command, path) {
        Ok(subject) => {
            let trials = trials(SUBJECT.get_or_init(|| subject));
            libtest_mimic::run(&command.harness, trials).exit_code()
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn subject(command: &CommandLine, path: &Path) -> Result<Subject, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can run containers".to_owned());
    }
    let path = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let short = file.strip_prefix("containerd-shim-");
    let short = short.and_then(|name| name.strip_suffix("-v1"));
    let short = short.ok_or_else(|| format!("{file} is not named like containerd-shim-mine-v1"))?;
    let name = command.name.as_deref().unwrap_or(short);
    let execution = if command.compiles {
        Execution::Compiled
    } else {
        Execution::Interpreted
    };
    let engine = Engine {
        name: text(name),
        shim: text(&file),
        runtime: text(&format!("io.containerd.{name}.v1")),
        execution,
        limits: texts(&command.limits),
        gaps: texts(&command.gaps),
        ..shimwright_engines::DEFAULT
    };
    Ok(Subject { path, engine })
}

/// A text that lasts as long as the rows of the table do.
fn text(text: &str) -> &'static str {
    text.to_owned().leak()
}

fn texts(all: &[String]) -> &'static [&'static str] {
    let all: Vec<_> = all.iter().map(|one| text(one)).collect();
    all.leak()
}

/// The tests that apply to the engine, by the names that they have with the engines of this
/// repository, but for the engine's.
fn trials(subject: &'static Subject) -> Vec<Trial> {
    let applies = |test: &&Test| subject.engine.compiles() || !test.compiles;
    let mut trials: Vec<_> = inventory::iter::<Test>
        .into_iter()
        .filter(applies)
        .map(|test| {
            let (_, module) = test.module.split_once("::").unwrap();
            Trial::test(format!("{module}::{}", test.name), || {
                (test.run)(subject.engine.shim);
                Ok(())
            })
        })
        .collect();
    trials.sort_by(|one, other| one.name().cmp(other.name()));
    trials
}

/// The tests of this program, as which it is executed again.
fn itself() -> Vec<Trial> {
    vec![
        Trial::test("a_shim_with_another_name_and_path_passes", another_shim),
        Trial::test("what_cannot_be_tested_is_named", no_shim),
    ]
}

fn tested(shim: &Path, more: &[&str]) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.arg("--shim").arg(shim).args(more);
    command.output().unwrap()
}

fn another_shim() -> Result<(), Failed> {
    let shims = std::env::var_os(SHIM_DIR_VARIABLE);
    let shims = shims.ok_or("SHIMWRIGHT_SHIM_DIR is not set: use `cargo xtask test`")?;
    let directory = tempfile::tempdir()?;
    let shim = directory.path().join("containerd-shim-theirs-v1");
    std::fs::copy(Path::new(&shims).join("containerd-shim-wasmi-v1"), &shim)?;
    let wasmi = shimwright_engines::by_name("wasmi").unwrap();
    let mut options = vec!["--name", "wasmi"];
    options.extend(wasmi.limits.iter().flat_map(|key| ["--limit", key]));
    options.extend(wasmi.gaps.iter().flat_map(|case| ["--gap", case]));
    for module in ["lifecycle::", "limits::", "start::"] {
        let ran = tested(&shim, &[&options[..], &[module]].concat());
        let told = String::from_utf8_lossy(&ran.stdout);
        if !ran.status.success() || !told.contains(module) {
            return Err(Failed::from(told));
        }
    }
    Ok(())
}

fn no_shim() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let other = directory.path().join("other");
    std::fs::write(&other, "")?;
    for (path, reason) in [
        (Path::new("/nowhere/containerd-shim-x-v1"), "No such file"),
        (&*other, "other is not named like"),
    ] {
        let ran = tested(path, &[]);
        let told = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() || !told.contains(reason) {
            return Err(Failed::from(told));
        }
    }
    Ok(())
}
