//! The program inside: writes down what it sees of its container as one line of JSON, does what its
//! arguments say, and waits for a line of input.
//!
//! `report [exit=STATUS] [STEP]...` is for a container, `hook FILE STAGE [exit=STATUS]` for a hook.

mod report;
mod steps;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let outcome = match words.split_first() {
        Some((&"hook", [file, stage, rest @ ..])) => hook(file, stage).map(|()| status(rest)),
        Some((_, steps)) => report(steps).map(|()| status(steps)),
        None => report(&[]).map(|()| 0),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(99)
        }
    }
}

/// The status to exit with.
fn status(words: &[&str]) -> u8 {
    let found = words.iter().find_map(|word| word.strip_prefix("exit="));
    found.and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn report(steps: &[&str]) -> io::Result<()> {
    // Before anything is opened here.
    let mut report = report::all();
    let steps = steps.iter().filter(|step| !step.starts_with("exit="));
    let done = steps.map(|step| ((*step).to_owned(), steps::run(step)));
    report["steps"] = Value::Object(done.collect());
    let mut output = io::stdout().lock();
    writeln!(output, "{report}")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        if line? != "again" {
            break;
        }
        writeln!(output, "{}", report::mounts())?;
        output.flush()?;
    }
    Ok(())
}

/// Adds a line about a hook to a file: what it is given, and where it runs.
fn hook(file: &str, stage: &str) -> io::Result<()> {
    let mut state = String::new();
    io::Read::read_to_string(&mut io::stdin(), &mut state)?;
    let state: Value = serde_json::from_str(&state).unwrap_or(json!(state));
    let mut line = report::hook();
    line["stage"] = json!(stage);
    line["state"] = state;
    let mut file = std::fs::File::options().append(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())
}
