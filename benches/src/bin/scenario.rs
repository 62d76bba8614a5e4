//! Runs one scenario with a shim, whosever it is, as root.
//!
//! The figures are printed as JSON on standard output, and for people on standard error.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};
use shimwright_benches::arguments::{Arguments, positive};
use shimwright_benches::commands::Named;
use shimwright_benches::compute::Cli;
use shimwright_benches::driver::Program;
use shimwright_benches::{
    Result, churn, commands, compute, driver, http, idle, interrupt, machine, startup, stats,
};

const USAGE: &str = "\
usage: scenario startup  --shim PATH --guest PATH [--arg WORD]... [-n STARTS]
       scenario churn    --shim PATH --guest PATH [-n TASKS] [-c CLIENTS]
                         [--crun PATH --native PATH] [--other PATH [--other-arg WORD]...]
       scenario idle     --shim PATH --guest PATH [-n CONTAINERS] [--shared] [--at NUMBER]...
                         [--path DIRECTORY]
       scenario http     --shim PATH --guest PATH [-n REQUESTS] [-c CONNECTIONS] [--reuse REQUESTS]
                         [--wasmtime PATH]
       scenario compute  --shim PATH [-n TIMES] [--python PATH] [--cli ENGINE=PATH]
       scenario commands --command NAME=[\"PROGRAM\",...]... [-n TIMES]

What each of them measures: docs/benchmarks.md.";

fn main() -> ExitCode {
    let outcome = run(std::env::args().skip(1));
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

/// Runs a scenario with what it was told.
type Run = fn(&Arguments) -> Result<Value>;

fn run(mut words: impl Iterator<Item = String>) -> Result<Value> {
    interrupt::catch()?;
    let scenario = words.next().ok_or(USAGE)?;
    let (options, flags, run): (&[&str], &[&str], Run) = match scenario.as_str() {
        "startup" => (&["--shim", "--guest", "--arg", "-n"], &[], run_startup),
        "churn" => (
            &[
                "--shim",
                "--guest",
                "-n",
                "-c",
                "--crun",
                "--native",
                "--other",
                "--other-arg",
            ],
            &[],
            run_churn,
        ),
        "idle" => (
            &["--shim", "--guest", "-n", "--at", "--path"],
            &["--shared"],
            run_idle,
        ),
        "http" => (
            &["--shim", "--guest", "-n", "-c", "--reuse", "--wasmtime"],
            &[],
            run_http,
        ),
        "compute" => (&["--shim", "-n", "--python", "--cli"], &[], run_compute),
        "commands" => (&["--command", "-n"], &[], run_commands),
        _ => return Err(USAGE.into()),
    };
    let arguments =
        Arguments::parse(words, options, flags).map_err(|error| format!("{error}\n{USAGE}"))?;
    let mut report = run(&arguments)?;
    for line in stats::lines(&report) {
        eprintln!("{line}");
    }
    report["scenario"] = json!(scenario);
    report["machine"] = machine::describe();
    Ok(report)
}

fn run_startup(arguments: &Arguments) -> Result<Value> {
    let program = Program::read(&arguments.required("--guest")?)?;
    startup::run(&startup::Options {
        shim: arguments.required("--shim")?,
        program: program.with_args(arguments.values("--arg")),
        number: arguments.number("-n", 20)?,
        bound: driver::BRIEF,
    })
}

fn run_churn(arguments: &Arguments) -> Result<Value> {
    let crun = match (arguments.path("--crun"), arguments.path("--native")) {
        (Some(crun), Some(native)) => Some((crun, Program::read(&native)?)),
        (None, None) => None,
        _ => return Err("--crun needs --native, and the other way round".into()),
    };
    let other = arguments.path("--other").map(|path| -> Result<Program> {
        Ok(Program::read(&path)?.with_args(arguments.values("--other-arg")))
    });
    churn::run(&churn::Options {
        shim: arguments.required("--shim")?,
        program: Program::read(&arguments.required("--guest")?)?,
        number: arguments.number("-n", 100)?,
        clients: arguments.number("-c", 1)?,
        crun,
        other: other.transpose()?,
    })
}

fn run_idle(arguments: &Arguments) -> Result<Value> {
    idle::run(&idle::Options {
        shim: arguments.required("--shim")?,
        program: Program::read(&arguments.required("--guest")?)?,
        containers: arguments.number("-n", 20)?,
        shared: arguments.flag("--shared"),
        at: arguments
            .values("--at")
            .map(positive)
            .collect::<Result<_>>()?,
        path: arguments.path("--path"),
    })
}

fn run_http(arguments: &Arguments) -> Result<Value> {
    http::run(&http::Options {
        shim: arguments.required("--shim")?,
        guest: arguments.required("--guest")?,
        requests: arguments.number("-n", 20_000)?,
        reuse: match arguments.number("--reuse", 0)? {
            0 => None,
            reuse => Some(reuse),
        },
        connections: arguments.number("-c", 16)?,
        wasmtime: arguments.path("--wasmtime"),
    })
}

fn run_compute(arguments: &Arguments) -> Result<Value> {
    compute::run(&compute::Options {
        shim: arguments.required("--shim")?,
        number: arguments.number("-n", 5)?,
        python: arguments.path("--python"),
        cli: arguments.value("--cli").map(Cli::parse).transpose()?,
    })
}

fn run_commands(arguments: &Arguments) -> Result<Value> {
    let named: Vec<Named> = arguments
        .values("--command")
        .map(Named::parse)
        .collect::<Result<_>>()?;
    commands::run(&named, arguments.number("-n", 20)?)
}
