//! Containers that wait: how long each takes to start, and their memory as they become more.

use std::path::PathBuf;
use std::slice::SliceIndex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shimwright_testkit::protos::ttrpc;
use shimwright_testkit::{Containerd, Shim, Version};

use crate::driver::{self, Program};
use crate::stats::{KIBIBYTES, MILLISECONDS, Samples};
use crate::{Result, interrupt};

/// The pod of all containers that share a shim.
const POD: &str = "pod";

/// How long processes may take to come to rest before their memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// How many starts are compared, at the begin and at the end.
const COMPARED: usize = 20;

/// What is measured.
#[derive(Debug)]
pub struct Options {
    /// The shim's executable.
    pub shim: PathBuf,
    /// A program that waits.
    pub program: Program,
    /// How many containers there are in the end.
    pub containers: usize,
    /// Whether one shim has all of them; otherwise each has its own.
    pub shared: bool,
    /// The memory is also read when there are so many.
    pub at: Vec<usize>,
    /// Where commands of the shim are looked for first.
    pub path: Option<PathBuf>,
}

/// Starts containers one after the other, and ends all of them.
///
/// # Errors
///
/// If one does not start. Nothing is left then either.
pub fn run(options: &Options) -> Result<Value> {
    let containerd = driver::containerd(&options.shim, options.path.as_deref())?;
    // The first one compiles.
    let bundle = options.program.bundle(&containerd, "first", "first")?;
    let (shim, version) = driver::start(&containerd, &bundle)?;
    driver::create(&shim, &bundle)?;
    shim.start("first")?;
    end(&shim, "first")?;
    shim.shutdown();

    let mut starts = Starts::new();
    let mut memory = Vec::new();
    let mut started = Vec::new();
    for number in 1..=options.containers {
        interrupt::check()?;
        let id = format!("t{number}");
        let pod = if options.shared { POD } else { &id };
        let bundle = options.program.bundle(&containerd, &id, pod)?;
        let begin = Instant::now();
        let shim = containerd.start(&bundle)?.version(version);
        let of_shim = driver::milliseconds(begin);
        shim.create(&bundle)?;
        let created = driver::milliseconds(begin);
        shim.start(&id)?;
        let whole = driver::milliseconds(begin);
        starts.push([of_shim, created - of_shim, whole - created, whole]);
        // Not the connection, which has threads of ours.
        started.push((shim.address().to_owned(), bundle));
        if number == options.containers || options.at.contains(&number) {
            memory.push(weigh(&containerd, number)?);
        }
    }
    for (index, (address, bundle)) in started.iter().enumerate() {
        interrupt::check()?;
        let shim = Shim::connect(address)?.version(version);
        end(&shim, bundle.id())?;
        if !options.shared || index + 1 == started.len() {
            shim.shutdown();
        }
    }
    report(options, version, &starts, memory)
}

/// Kills and deletes a container.
fn end(shim: &Shim, id: &str) -> ttrpc::Result<()> {
    shim.kill(id, 9)?;
    shim.wait(id)?;
    shim.delete(id).map(drop)
}

/// The memory of all processes, by their role.
fn weigh(containerd: &Containerd, containers: usize) -> Result<Value> {
    // Nothing tells when the last of them waits.
    std::thread::sleep(SETTLE);
    let mut report = json!({ "containers": containers });
    let mut total = 0;
    for (role, contained) in [("shim", false), ("runner", true)] {
        let processes = containerd.snapshot().processes.into_iter();
        let of_role = processes.filter(|process| process.contained == contained);
        let pss = of_role
            .map(|process| driver::pss(process.pid))
            .collect::<Result<Vec<u64>>>()?;
        let kib: u64 = pss.iter().sum();
        total += kib;
        report[role] = json!({
            "processes": pss.len(),
            "pss_per_container": per_container(kib, containers)?,
        });
    }
    report["pss_per_container"] = per_container(total, containers)?;
    Ok(report)
}

fn per_container(kib: u64, containers: usize) -> Result<Value> {
    let mut samples = Samples::new(KIBIBYTES);
    samples.push(kib as f64 / containers as f64);
    samples.summary()
}

fn report(
    options: &Options,
    version: Version,
    starts: &Starts,
    memory: Vec<Value>,
) -> Result<Value> {
    let whole = starts.whole().values();
    let compared = COMPARED.min(whole.len());
    let [first, last] = [
        starts.part(..compared),
        starts.part(whole.len() - compared..),
    ];
    let growth = last.whole().median() / first.whole().median();
    Ok(json!({
        "containers": options.containers,
        "shared_shim": options.shared,
        "task_service": format!("{version:?}").to_lowercase(),
        "start": starts.whole().summary()?,
        "first_starts": first.summary()?,
        "last_starts": last.summary()?,
        "ratio_of_starts": growth,
        "starts_ms": whole,
        "memory": memory,
    }))
}

/// What a start consists of, and the whole.
const PHASES: [&str; 4] = ["start_shim", "create", "start", "whole"];

/// The milliseconds of starts, by their phases.
struct Starts([Samples; PHASES.len()]);

impl Starts {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Samples::new(MILLISECONDS)))
    }

    fn push(&mut self, times: [f64; PHASES.len()]) {
        for (samples, time) in self.0.iter_mut().zip(times) {
            samples.push(time);
        }
    }

    fn whole(&self) -> &Samples {
        &self.0[PHASES.len() - 1]
    }

    /// Some of them.
    fn part(&self, range: impl SliceIndex<[f64], Output = [f64]> + Clone) -> Self {
        Self(std::array::from_fn(|phase| {
            let mut samples = Samples::new(MILLISECONDS);
            samples.extend(self.0[phase].values()[range.clone()].iter().copied());
            samples
        }))
    }

    fn summary(&self) -> Result<Value> {
        let mut report = json!({});
        for (phase, samples) in PHASES.iter().zip(&self.0) {
            report[*phase] = samples.summary()?;
        }
        Ok(report)
    }
}
