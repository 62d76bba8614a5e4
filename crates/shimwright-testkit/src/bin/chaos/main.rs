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

use clap::Parser;
use shimwright_testkit::Result;

use faults::{FAULTS, Fault};
use round::Round;

/// Faults of containers of each shim, one after the other.
///
/// A line for a failure names the seed with which its fault is tried again, alone, with the same
/// random choices.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Options {
    /// A shim
    #[arg(long = "shim", value_name = "PATH", required = true, value_parser = file)]
    shims: Vec<PathBuf>,
    /// How long it goes on
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// What repeats random choices
    #[arg(long, value_name = "N", default_value_t = fastrand::u64(..1 << 32), hide_default_value = true)]
    seed: u64,
    /// The faults whose names hold this text
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    fault: String,
    /// Also those that set the clock of the whole machine, where nobody else needs it
    #[arg(long)]
    clock: bool,
}

fn file(text: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_file() {
        return Ok(path);
    }
    Err("there is no such file".to_owned())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
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
        if turn >= least && begin.elapsed() >= Duration::from_secs(options.seconds) {
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

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    fn options(words: &[&str]) -> Options {
        let shim = std::env::current_exe().unwrap();
        let words = [&["chaos", "--shim", shim.to_str().unwrap()], words].concat();
        Options::try_parse_from(words).unwrap()
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
