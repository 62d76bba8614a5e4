//! Runs one scenario with a shim, whosever it is, as root.
//!
//! The figures are printed as JSON on standard output, and for people on standard error.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use serde_json::{Value, json};
use shimwright_benches::commands::Named;
use shimwright_benches::compute::Cli;
use shimwright_benches::driver::Program;
use shimwright_benches::{
    Result, churn, commands, compute, driver, http, idle, interrupt, machine, startup, stats,
};

/// Runs one scenario with a shim, as root, and prints a report as JSON.
///
/// What each of them measures: docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(name = "scenario")]
enum Scenario {
    /// The first start of a program, which compiles it
    Startup(Startup),
    /// Tasks, one after the other and at once
    Churn(Churn),
    /// Containers that wait, and their memory
    Idle(Idle),
    /// Requests to a handler
    Http(Http),
    /// Programs that compute
    Compute(Compute),
    /// Commands in turns
    Commands(Commands),
}

#[derive(Args, Debug)]
struct Startup {
    #[command(flatten)]
    subject: Subject,
    /// An argument of the guest
    #[arg(long = "arg", value_name = "WORD", allow_hyphen_values = true)]
    args: Vec<String>,
    /// How many starts
    #[arg(short = 'n', value_name = "STARTS", default_value = "20")]
    number: NonZeroUsize,
}

#[derive(Args, Debug)]
struct Churn {
    #[command(flatten)]
    subject: Subject,
    /// How many tasks
    #[arg(short = 'n', value_name = "TASKS", default_value = "100")]
    number: NonZeroUsize,
    /// How many at once
    #[arg(short = 'c', value_name = "CLIENTS", default_value = "1")]
    clients: NonZeroUsize,
    /// A crun to compare with, in turns
    #[arg(long, value_name = "PATH", requires = "native")]
    crun: Option<PathBuf>,
    /// What it runs
    #[arg(long, value_name = "PATH", requires = "crun")]
    native: Option<PathBuf>,
    /// Another guest, in turns
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// An argument of the other guest
    #[arg(long = "other-arg", value_name = "WORD", allow_hyphen_values = true)]
    other_args: Vec<String>,
}

#[derive(Args, Debug)]
struct Idle {
    #[command(flatten)]
    subject: Subject,
    /// How many containers there are in the end
    #[arg(short = 'n', value_name = "CONTAINERS", default_value = "20")]
    containers: NonZeroUsize,
    /// One shim process for all
    #[arg(long)]
    shared: bool,
    /// A number of containers at which memory is read too
    #[arg(long, value_name = "NUMBER")]
    at: Vec<NonZeroUsize>,
    /// A directory with what the shim executes
    #[arg(long, value_name = "DIRECTORY")]
    path: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Http {
    #[command(flatten)]
    subject: Subject,
    /// How many requests
    #[arg(short = 'n', value_name = "REQUESTS", default_value = "20000")]
    requests: NonZeroUsize,
    /// How many connections
    #[arg(short = 'c', value_name = "CONNECTIONS", default_value = "16")]
    connections: NonZeroUsize,
    /// How many requests an instance answers, if more than one
    #[arg(long, value_name = "REQUESTS")]
    reuse: Option<NonZeroUsize>,
    /// Wasmtime's command line to compare with
    #[arg(long, value_name = "PATH")]
    wasmtime: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Compute {
    /// The shim that is measured
    #[arg(long, value_name = "PATH")]
    shim: PathBuf,
    /// How many times
    #[arg(short = 'n', value_name = "TIMES", default_value = "5")]
    number: NonZeroUsize,
    /// CPython for WASI
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// An engine's command line to compare with
    #[arg(long, value_name = "ENGINE=PATH")]
    cli: Option<String>,
}

#[derive(Args, Debug)]
struct Commands {
    /// A command
    #[arg(long = "command", value_name = "NAME=[\"PROGRAM\",...]")]
    commands: Vec<String>,
    /// How many times
    #[arg(short = 'n', value_name = "TIMES", default_value = "20")]
    number: NonZeroUsize,
}

/// What is measured.
#[derive(Args, Debug)]
struct Subject {
    /// The shim that is measured
    #[arg(long, value_name = "PATH")]
    shim: PathBuf,
    /// The program that it runs
    #[arg(long, value_name = "PATH")]
    guest: PathBuf,
}

fn main() -> ExitCode {
    let outcome = run(Scenario::parse());
    let written = outcome.and_then(|report| {
        writeln!(std::io::stdout(), "{report:#}")?;
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenario: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: Scenario) -> Result<Value> {
    interrupt::catch()?;
    let (name, mut report) = match scenario {
        Scenario::Startup(options) => ("startup", run_startup(options)?),
        Scenario::Churn(options) => ("churn", run_churn(options)?),
        Scenario::Idle(options) => ("idle", run_idle(options)?),
        Scenario::Http(options) => ("http", run_http(options)?),
        Scenario::Compute(options) => ("compute", run_compute(options)?),
        Scenario::Commands(options) => ("commands", run_commands(&options)?),
    };
    for line in stats::lines(&report) {
        eprintln!("{line}");
    }
    report["scenario"] = json!(name);
    report["machine"] = machine::describe();
    Ok(report)
}

fn run_startup(options: Startup) -> Result<Value> {
    let program = Program::read(&options.subject.guest)?;
    let args = options.args.iter().map(String::as_str);
    startup::run(&startup::Options {
        shim: options.subject.shim,
        program: program.with_args(args),
        number: options.number.get(),
        bound: driver::BRIEF,
    })
}

fn run_churn(options: Churn) -> Result<Value> {
    let crun = options.crun.zip(options.native);
    let crun = crun.map(|(crun, native)| -> Result<_> { Ok((crun, Program::read(&native)?)) });
    let args = options.other_args.iter().map(String::as_str);
    let other = options.other.map(|path| Program::read(&path));
    let other = other.transpose()?.map(|program| program.with_args(args));
    churn::run(&churn::Options {
        shim: options.subject.shim,
        program: Program::read(&options.subject.guest)?,
        number: options.number.get(),
        clients: options.clients.get(),
        crun: crun.transpose()?,
        other,
    })
}

fn run_idle(options: Idle) -> Result<Value> {
    idle::run(&idle::Options {
        shim: options.subject.shim,
        program: Program::read(&options.subject.guest)?,
        containers: options.containers.get(),
        shared: options.shared,
        at: options.at.into_iter().map(NonZeroUsize::get).collect(),
        path: options.path,
    })
}

fn run_http(options: Http) -> Result<Value> {
    http::run(&http::Options {
        shim: options.subject.shim,
        guest: options.subject.guest,
        requests: options.requests.get(),
        reuse: options.reuse.map(NonZeroUsize::get),
        connections: options.connections.get(),
        wasmtime: options.wasmtime,
    })
}

fn run_compute(options: Compute) -> Result<Value> {
    compute::run(&compute::Options {
        shim: options.shim,
        number: options.number.get(),
        python: options.python,
        cli: options.cli.as_deref().map(Cli::parse).transpose()?,
    })
}

fn run_commands(options: &Commands) -> Result<Value> {
    let named = options.commands.iter().map(|text| Named::parse(text));
    let named: Vec<Named> = named.collect::<Result<_>>()?;
    commands::run(&named, options.number.get())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Scenario::command().debug_assert();
    }
}
