//! `cargo xtask`: what developers, CI and the curious run. This file only dispatches.
#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks to its user on stdout"
)]

mod attack;
mod bench;
mod cargo;
mod chaos;
mod ci;
mod compare;
mod demo;
mod dist;
mod e2e;
mod engine;
mod fuzz;
mod guests;
mod parity;
mod sizes;
mod tally;
mod test;
mod tidy;
mod vm;
mod wasi_testsuite;
mod wasmedge;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use shimwright_testenv::error::Result;
use shimwright_testenv::{debian, process};

/// What developers, CI and the curious run. Those with (root) start containers.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask")]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a WebAssembly program with containerd, from nothing (root)
    Demo(demo::Options),
    /// Every test there is (root)
    Test(test::Options),
    /// The tests on real containerd alone (root)
    E2e(e2e::Options),
    /// Faults in every step of a container's life, and what they leave (root)
    Chaos(chaos::Options),
    /// The tests that attack the node, with the cgroups of this machine and in that of `vm` (root)
    Attack(attack::Options),
    /// The same OCI specs with a shim and with runc, and what differs (root)
    Parity(parity::Options),
    /// Tests of the shims, or chaos, in an emulated machine with cgroup v2 only (root)
    Vm(vm::Options),
    /// The parsers of what others hand us, with cargo-fuzz
    Fuzz(fuzz::Options),
    /// CPython, QuickJS, Ruby and others on every engine (root)
    Programs(e2e::ProgramOptions),
    /// Tests as of WebAssembly/wasi-testsuite, on every engine (root)
    WasiTestsuite(wasi_testsuite::Options),
    /// Every scenario of the benchmarks, and which targets are met (root)
    Bench(bench::Options),
    /// The engines on sample programs or on yours, with plots (root)
    Compare(compare::Options),
    /// Check what compilers cannot
    Tidy(tidy::Options),
    /// Format, lints, each crate alone, documentation, tidy, test (root)
    Ci,
    /// The shims to install, smaller and slower to build: DIRECTORY/bin and DIRECTORY/lib
    Dist(dist::Options),
    /// The shared libraries of the WasmEdge shim, or the tests that need them
    Wasmedge(wasmedge::Options),
    /// Install the Debian packages that the others need (root)
    Setup,
    /// Print completions for a shell, of a command `xtask`: alias it to `cargo xtask`
    Completions {
        /// The shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    match dispatch(CommandLine::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(line: CommandLine) -> Result<ExitCode> {
    process::catch_interrupts()?;
    let Some(command) = line.command else {
        CommandLine::command().print_help()?;
        return Ok(ExitCode::SUCCESS);
    };
    match command {
        Command::Demo(options) => demo::main(&options),
        Command::Test(options) => test::main(&options),
        Command::E2e(options) => e2e::main(&options),
        Command::Chaos(options) => chaos::main(&options),
        Command::Attack(options) => attack::main(&options),
        Command::Parity(options) => parity::main(&options),
        Command::Vm(options) => vm::main(options),
        Command::Fuzz(options) => fuzz::main(&options),
        Command::Programs(options) => e2e::programs(&options),
        Command::WasiTestsuite(options) => wasi_testsuite::main(&options),
        Command::Bench(options) => bench::main(&options),
        Command::Compare(options) => compare::main(options),
        Command::Tidy(options) => tidy::main(options),
        Command::Ci => ci::main(),
        Command::Dist(options) => dist::main(&options),
        Command::Wasmedge(options) => wasmedge::main(&options),
        Command::Setup => debian::install_missing().map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            let mut command = CommandLine::command().bin_name("xtask");
            clap_complete::generate(shell, &mut command, "xtask", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The options of a command, of its words.
#[cfg(test)]
fn parse<T: clap::Args>(words: &[&str]) -> std::result::Result<T, clap::Error> {
    let command = T::augment_args(clap::Command::new("command"));
    let words = ["command"].iter().chain(words);
    T::from_arg_matches(&command.try_get_matches_from(words)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
