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

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use shimwright_benches::driver::Program;
use shimwright_benches::{Result, compute, interrupt};

use measure::{Engine, Subject};
use report::Report;

/// Compares engines on the sample programs or on a program of yours, as root.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Options {
    /// An engine and its shim
    #[arg(long = "engine", value_name = "NAME=SHIM", required = true, value_parser = pair)]
    engines: Vec<(String, String)>,
    /// An engine that is not there, and why
    #[arg(long, value_name = "NAME=REASON", value_parser = pair)]
    absent: Vec<(String, String)>,
    /// A program of yours
    #[arg(long, value_name = "PATH")]
    app: Option<PathBuf>,
    /// An argument of this program
    #[arg(long = "app-arg", value_name = "WORD", allow_hyphen_values = true)]
    app_args: Vec<String>,
    /// CPython for WASI, one of the samples
    #[arg(long, value_name = "PATH", conflicts_with = "app")]
    python: Option<PathBuf>,
    /// The page with plots
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The command line that the page shows
    #[arg(
        long,
        value_name = "LINE",
        default_value = "compare",
        hide_default_value = true
    )]
    command: String,
    /// Fewer samples of everything
    #[arg(long)]
    quick: bool,
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("there is no `=` in it")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    interrupt::catch()?;
    let engines = options.engines.into_iter();
    let engines: Vec<Engine> = engines
        .map(|(name, shim)| Engine::new(&name, PathBuf::from(shim)))
        .collect();
    let app = options.app.map(|path| -> Result<Program> {
        let words = options.app_args.iter().map(String::as_str);
        Ok(Program::read(&path)?.with_args(words))
    });
    let subject = match app.transpose()? {
        Some(app) => Subject::App(app),
        None => Subject::Samples(compute::works(options.python.as_deref())?),
    };

    let rows = measure::rows(&subject);
    let progress = bar(engines.len() * measure::steps(&subject));
    let mut columns = Vec::new();
    for engine in engines {
        columns.push(measure::measure(engine, &subject, options.quick, |step| {
            progress.set_message(step);
            if !std::io::stderr().is_terminal() {
                eprintln!("{}", progress.message());
            }
            progress.inc(1);
        })?);
    }
    progress.finish_and_clear();
    let report = Report {
        subject: subject.title(),
        command: options.command,
        rows,
        columns,
        absent: options.absent,
    };
    writeln!(std::io::stdout(), "{}", report.text())?;
    if let Some(path) = options.output {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
