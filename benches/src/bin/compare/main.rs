//! Compares engines on the sample programs or on a program of the user's, as root: a table in the
//! terminal, and one HTML page with plots.

mod conformance;
mod html;
mod measure;
mod number;
mod plot;
mod report;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use shimwright_benches::arguments::Arguments;
use shimwright_benches::driver::Program;
use shimwright_benches::{Result, compute, interrupt};

use measure::{Engine, Subject};
use report::Report;

const USAGE: &str = "\
usage: compare --engine NAME=SHIM... [--absent NAME=REASON]...
               [--app PATH [--app-arg WORD]... | --python PATH]
               [--output FILE] [--command LINE] [--quick]";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: impl Iterator<Item = String>) -> Result<()> {
    interrupt::catch()?;
    let options = [
        "--engine",
        "--absent",
        "--app",
        "--app-arg",
        "--python",
        "--output",
        "--command",
    ];
    let arguments = Arguments::parse(words, &options, &["--quick"])
        .map_err(|error| format!("{error}\n{USAGE}"))?;
    let named = |option| {
        let pairs = arguments.values(option).map(|text| {
            let pair = text.split_once('=');
            pair.ok_or_else(|| format!("{option}: {text} is not NAME=...\n{USAGE}"))
        });
        pairs.collect::<std::result::Result<Vec<_>, _>>()
    };
    let engines: Vec<Engine> = named("--engine")?
        .into_iter()
        .map(|(name, shim)| Engine::new(name, PathBuf::from(shim)))
        .collect();
    if engines.is_empty() {
        return Err(USAGE.into());
    }
    let app = arguments.path("--app").map(|path| -> Result<Program> {
        Ok(Program::read(&path)?.with_args(arguments.values("--app-arg")))
    });
    let python = arguments.path("--python");
    let subject = match app.transpose()? {
        Some(app) => Subject::App(app),
        None => Subject::Samples(compute::works(python.as_deref())?),
    };
    let quick = arguments.flag("--quick");

    let rows = measure::rows(&subject);
    let progress = bar(engines.len() * measure::steps(&subject));
    let mut columns = Vec::new();
    for engine in engines {
        columns.push(measure::measure(engine, &subject, quick, |step| {
            progress.set_message(step);
            if !std::io::stderr().is_terminal() {
                eprintln!("{}", progress.message());
            }
            progress.inc(1);
        })?);
    }
    progress.finish_and_clear();
    let absent = named("--absent")?;
    let absent = absent.into_iter();
    let report = Report {
        subject: subject.title(),
        command: arguments.value("--command").unwrap_or("compare").to_owned(),
        rows,
        columns,
        absent: absent
            .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
            .collect(),
    };
    writeln!(std::io::stdout(), "{}", report.text())?;
    if let Some(path) = arguments.path("--output") {
        std::fs::write(&path, html::page(&report)?)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        writeln!(std::io::stdout(), "the page with plots: {}", path.display())?;
    }
    Ok(())
}

/// What is shown meanwhile; nothing if standard error is no terminal.
fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    // The template is a constant; without it the bar has its usual form.
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
