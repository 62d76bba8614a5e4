//! The start of a container, by its phases: with a program that has never been compiled, and with
//! the same one from the cache. Each container has a shim of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use shimwright_testkit::{Containerd, Version};

use crate::driver::{self, Program};
use crate::stats::{MILLISECONDS, Samples};
use crate::{Result, interrupt};

/// What takes time, in its order.
const PHASES: [&str; 7] = [
    "start_shim",
    "create",
    "start",
    "first_output",
    "exit",
    "delete",
    "total",
];

/// What is measured.
#[derive(Debug)]
pub struct Options {
    /// The shim's executable.
    pub shim: PathBuf,
    /// A program that prints something and ends with 0.
    pub program: Program,
    /// How many starts of each kind.
    pub number: usize,
    /// How long the program may run.
    pub bound: Duration,
}

/// The samples of each phase.
struct Phases([Samples; PHASES.len()]);

impl Phases {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Samples::new(MILLISECONDS)))
    }

    fn summary(&self) -> Result<Value> {
        let mut report = Map::new();
        for (phase, samples) in PHASES.iter().zip(&self.0) {
            report.insert((*phase).into(), samples.summary()?);
        }
        Ok(Value::Object(report))
    }
}

/// Starts containers, cold and warm in turns, and reports each phase.
///
/// # Errors
///
/// If one does not run.
pub fn run(options: &Options) -> Result<Value> {
    let containerd = driver::containerd(&options.shim, None)?;
    let asked = options.program.bundle(&containerd, "asked", "asked")?;
    let (shim, version) = driver::start(&containerd, &asked)?;
    shim.shutdown();
    let one = |program: &Program, id: &str, phases: &mut Phases| {
        live(&containerd, version, program, id, options.bound, phases)
    };
    // So that what is on disk is in memory.
    one(&options.program, "first", &mut Phases::new())?;
    let [mut cold, mut warm] = [Phases::new(), Phases::new()];
    for number in 0..options.number {
        let new = options.program.never_seen(number);
        one(&new, &format!("cold{number}"), &mut cold)?;
        one(&options.program, &format!("warm{number}"), &mut warm)?;
    }
    Ok(json!({ "cold": cold.summary()?, "warm": warm.summary()? }))
}

/// A container's life in a shim of its own.
fn live(
    containerd: &Containerd,
    version: Version,
    program: &Program,
    id: &str,
    bound: Duration,
    phases: &mut Phases,
) -> Result<()> {
    interrupt::check()?;
    let mut bundle = program.bundle(containerd, id, id)?;
    let (stdout, stderr) = (bundle.stdout()?, bundle.stderr()?);
    let begin = Instant::now();
    let mut last = begin;
    let mut times = Vec::new();
    let mut lap = || {
        times.push(driver::milliseconds(last));
        last = Instant::now();
    };
    let shim = containerd.start(&bundle)?.version(version);
    lap();
    driver::create(&shim, &bundle)?;
    lap();
    shim.start(id)?;
    lap();
    driver::first_output(&stdout, bound)?;
    lap();
    let status = driver::wait(&shim, id, bound)?;
    lap();
    shim.delete(id)?;
    lap();
    times.push(driver::milliseconds(begin));
    shim.shutdown();
    // It may be large, and is kept in memory.
    std::fs::remove_dir_all(bundle.image())?;
    if status != 0 {
        return Err(driver::failed(status, &stderr));
    }
    for (samples, time) in phases.0.iter_mut().zip(times) {
        samples.push(time);
    }
    Ok(())
}
