//! Faults in every step of a container's life, one after the other, until the time is up. After
//! each one nothing may be left on the machine, and the same id must start again.
//!
//! A fault is a function and a line in the table of [`faults`]. What is random in one comes from a
//! seed, so that a failure can be had again.

mod faults;
mod round;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use faults::{FAULTS, Fault};
use round::Round;
use shimwright_testkit::Result;

const USAGE: &str = "\
usage: chaos --shim PATH [--shim PATH ...] [--seconds N] [--seed N] [--fault TEXT]

Faults of containers of each shim for N seconds, 60 if not said otherwise. A line for a failure
names the seed with which its fault is tried again, alone, with the same random choices.";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    shims: Vec<PathBuf>,
    time: Duration,
    seed: u64,
    fault: String,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        shims: Vec::new(),
        time: Duration::from_secs(60),
        seed: fastrand::u64(..1 << 32),
        fault: String::new(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--shim" => options.shims.push(value()?.into()),
            "--seconds" => options.time = Duration::from_secs(number(&value()?)?),
            "--seed" => options.seed = number(&value()?)?,
            "--fault" => options.fault = value()?,
            _ => return Err(USAGE.into()),
        }
    }
    if options.shims.is_empty() {
        return Err(USAGE.into());
    }
    if let Some(absent) = options.shims.iter().find(|shim| !shim.is_file()) {
        return Err(format!("there is no shim {}", absent.display()).into());
    }
    Ok(options)
}

fn number(text: &str) -> Result<u64> {
    let number = text.parse();
    number.map_err(|_| format!("not a number: {text}").into())
}

/// What came of one kind of fault.
#[derive(Default)]
struct Tally {
    rounds: usize,
    faults: usize,
    failed: usize,
    slowest: Duration,
}

/// Tries faults until the time is up, and says whether all went well.
fn run(options: &Options) -> Result<bool> {
    let chosen: Vec<&Fault> = FAULTS
        .iter()
        .filter(|fault| fault.name.contains(&options.fault))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no fault has {:?} in its name", options.fault).into());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "seed {}", options.seed)?;
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let begin = Instant::now();
    let mut told = begin;
    // Each kind at least once with each shim, however little time there is.
    let least = chosen.len() * options.shims.len();
    for turn in 0.. {
        if turn >= least && begin.elapsed() >= options.time {
            break;
        }
        let fault = chosen[turn % chosen.len()];
        let shim = &options.shims[turn / chosen.len() % options.shims.len()];
        let seed = options.seed.wrapping_add(turn as u64);
        let start = Instant::now();
        let (faults, outcome) = Round::play(shim, seed, fault.run);
        let tally = tallies.entry(fault.name).or_default();
        tally.rounds += 1;
        tally.faults += faults;
        tally.slowest = tally.slowest.max(start.elapsed());
        if let Err(error) = outcome {
            tally.failed += 1;
            writeln!(
                out,
                "FAILED  {}: {error}\n        again with: --shim {} --seed {seed} --fault {:?} --seconds 0",
                fault.name,
                shim.display(),
                fault.name,
            )?;
        }
        if told.elapsed() >= Duration::from_secs(30) {
            told = Instant::now();
            let all: usize = tallies.values().map(|tally| tally.faults).sum();
            writeln!(out, "{} s: {all} faults", begin.elapsed().as_secs())?;
        }
    }
    report(&mut out, &tallies, begin.elapsed())
}

fn report(out: &mut impl Write, tallies: &BTreeMap<&str, Tally>, time: Duration) -> Result<bool> {
    writeln!(out, "rounds  faults  failed  slowest")?;
    let mut sum = Tally::default();
    for (name, tally) in tallies {
        writeln!(
            out,
            "{:6}  {:6}  {:6}  {:5.1} s  {name}",
            tally.rounds,
            tally.faults,
            tally.failed,
            tally.slowest.as_secs_f32(),
        )?;
        sum.rounds += tally.rounds;
        sum.faults += tally.faults;
        sum.failed += tally.failed;
    }
    writeln!(
        out,
        "in {} s: {} faults in {} rounds, {} of them failed",
        time.as_secs(),
        sum.faults,
        sum.rounds,
        sum.failed,
    )?;
    Ok(sum.failed == 0)
}
