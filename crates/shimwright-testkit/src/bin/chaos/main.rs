//! Faults in every step of a container's life, one after the other, until the time is up. After
//! each one nothing may be left on the machine, and the same id must start again.
//!
//! A fault is a function and a line in the table of [`faults`]. What is random in one comes from a
//! seed, so that a failure can be had again.

mod clock;
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
usage: chaos --shim PATH [--shim PATH ...] [--seconds N] [--seed N] [--fault TEXT] [--clock]

Faults of containers of each shim for N seconds, 60 if not said otherwise. A line for a failure
names the seed with which its fault is tried again, alone, with the same random choices.

With --clock also those that set the clock of the whole machine, where nobody else needs it.";

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
    clock: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        shims: Vec::new(),
        time: Duration::from_secs(60),
        seed: fastrand::u64(..1 << 32),
        fault: String::new(),
        clock: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--shim" => options.shims.push(value()?.into()),
            "--seconds" => options.time = Duration::from_secs(number(&value()?)?),
            "--seed" => options.seed = number(&value()?)?,
            "--fault" => options.fault = value()?,
            "--clock" => options.clock = true,
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
    let chosen = chosen(options)?;
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

/// The faults that are asked for, and allowed.
fn chosen(options: &Options) -> Result<Vec<&'static Fault>> {
    let named = |fault: &&Fault| fault.name.contains(&options.fault);
    let allowed = |fault: &&Fault| options.clock || !fault.sets_clock;
    let chosen: Vec<_> = FAULTS.iter().filter(named).filter(allowed).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let text = &options.fault;
    Err(match FAULTS.iter().find(named) {
        Some(fault) => format!(
            "{:?} sets the clock of the whole machine: it takes --clock, where nobody needs that \
             clock, as in `cargo xtask vm --chaos`",
            fault.name
        ),
        None => format!("no fault has {text:?} in its name"),
    }
    .into())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn options(words: &[&str]) -> Options {
        let shim = std::env::current_exe().unwrap();
        let words = [&["--shim", shim.to_str().unwrap()], words].concat();
        parse(words.into_iter().map(str::to_owned)).unwrap()
    }

    #[test]
    fn the_clock_is_set_only_if_that_is_asked_for() {
        let sets = |options: &Options| {
            let mut chosen = chosen(options).unwrap().into_iter();
            chosen.any(|fault| fault.sets_clock)
        };
        assert!(!sets(&options(&[])));
        assert!(sets(&options(&["--clock"])));
        assert!(sets(&options(&["--clock", "--fault", "the clock jumps"])));
        let refused = chosen(&options(&["--fault", "the clock jumps"]));
        let text = refused.err().unwrap().to_string();
        assert!(text.contains("takes --clock"), "{text}");
        let unknown = chosen(&options(&["--clock", "--fault", "no such"]));
        assert!(unknown.is_err());
    }
}
