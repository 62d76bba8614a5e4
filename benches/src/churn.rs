//! The whole life of tasks that end by themselves, in one shim: one after the other, or by several
//! clients at once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shimwright_testkit::{Bundle, Containerd, Error, Shim};

use crate::driver::{self, Life, Program};
use crate::stats::{MILLISECONDS, PER_SECOND, Samples};
use crate::{Result, interrupt};

/// The pod of all containers.
const POD: &str = "pod";

/// How long ago the files of an image are made at least when it is measured: a shim may trust what it
/// knows of a file only if that was not changed just now.
const UNPACKED: Duration = Duration::from_secs(3);

/// What is measured.
#[derive(Debug)]
pub struct Options {
    /// The shim's executable.
    pub shim: PathBuf,
    /// A program that ends with 0.
    pub program: Program,
    /// How many tasks.
    pub number: usize,
    /// How many clients at once.
    pub clients: usize,
    /// crun and the native program that it runs after each task.
    pub crun: Option<(PathBuf, Program)>,
    /// Another program that the shim runs after each task.
    pub other: Option<Program>,
}

/// What one or all clients have measured.
struct Measured {
    ours: Tasks,
    other: Tasks,
    crun: Samples,
}

impl Measured {
    fn new() -> Self {
        Self {
            ours: Tasks::new(),
            other: Tasks::new(),
            crun: Samples::new(MILLISECONDS),
        }
    }
}

struct Tasks {
    whole: Samples,
    create: Samples,
}

impl Tasks {
    fn new() -> Self {
        Self {
            whole: Samples::new(MILLISECONDS),
            create: Samples::new(MILLISECONDS),
        }
    }

    fn push(&mut self, Life { create, whole }: Life) {
        self.create.push(create);
        self.whole.push(whole);
    }

    fn extend(&mut self, others: &Self) {
        self.create.extend(others.create.values().iter().copied());
        self.whole.extend(others.whole.values().iter().copied());
    }

    fn summary(&self) -> Result<Value> {
        Ok(json!({
            "task": self.whole.summary()?,
            "create": self.create.summary()?,
        }))
    }
}

/// Runs the tasks.
///
/// # Errors
///
/// If one of them fails.
pub fn run(options: &Options) -> Result<Value> {
    let containerd = driver::containerd(&options.shim, None)?;
    let first = options.program.bundle(&containerd, "first", POD)?;
    let (shim, _) = driver::start(&containerd, &first)?;
    // The first compiles, so it is not counted.
    driver::live(&shim, &first, driver::BRIEF)?;
    let other = options
        .other
        .as_ref()
        .map(|other| -> Result<_> {
            let image = other.bundle(&containerd, "first-other", POD)?;
            driver::live(&shim, &image, driver::BRIEF)?;
            std::thread::sleep(UNPACKED);
            let second = other.bundle_of(&image, &containerd, "second-other", POD)?;
            driver::live(&shim, &second, driver::BRIEF)?;
            Ok((other, image))
        })
        .transpose()?;
    let other = other.as_ref().map(|(other, image)| (*other, image));

    let client = |client| client_of(options, other, &containerd, &shim, client);
    let begin = Instant::now();
    let outcomes: Vec<Result<Measured>> = std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..options.clients)
            .map(|index| scope.spawn(move || client(index)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::from("a client panicked")))
        };
        clients.into_iter().map(join).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let mut all = Measured::new();
    for outcome in outcomes {
        let some = outcome?;
        all.ours.extend(&some.ours);
        all.other.extend(&some.other);
        all.crun.extend(some.crun.values().iter().copied());
    }
    shim.shutdown();
    report(options.clients, &all, seconds)
}

/// What one of the clients does: its part of the tasks, and after each one the same of the others,
/// so that all see the same machine.
///
/// The others are containers of one image, whose large file is the same in each of them.
fn client_of(
    options: &Options,
    other: Option<(&Program, &Bundle)>,
    containerd: &Containerd,
    shim: &Shim,
    client: usize,
) -> Result<Measured> {
    let mut measured = Measured::new();
    for turn in (client..options.number).step_by(options.clients) {
        let bundle = options
            .program
            .bundle(containerd, &format!("t{turn}"), POD)?;
        measured
            .ours
            .push(driver::live(shim, &bundle, driver::BRIEF)?);
        if let Some((crun, native)) = &options.crun {
            let bundle = native.bundle(containerd, &format!("c{turn}"), POD)?;
            measured.crun.push(crun_run(crun, containerd, &bundle)?);
        }
        if let Some((other, image)) = other {
            let bundle = other.bundle_of(image, containerd, &format!("o{turn}"), POD)?;
            measured
                .other
                .push(driver::live(shim, &bundle, driver::BRIEF)?);
        }
    }
    Ok(measured)
}

/// A task's whole life by a runtime that has no shim.
fn crun_run(crun: &Path, containerd: &Containerd, bundle: &Bundle) -> Result<f64> {
    interrupt::check()?;
    let begin = Instant::now();
    let status = Command::new(crun)
        .arg("--root")
        .arg(containerd.directory().join("crun"))
        .args(["run", "--bundle"])
        .arg(bundle.directory())
        .arg(bundle.id())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("crun ended with {status}").into());
    }
    Ok(driver::milliseconds(begin))
}

fn report(clients: usize, all: &Measured, seconds: f64) -> Result<Value> {
    let mut report = json!({ "clients": clients, "shim": all.ours.summary()? });
    if !all.other.whole.is_empty() {
        report["other"] = all.other.summary()?;
        let difference = all.other.whole.median() - all.ours.whole.median();
        report["difference_of_medians_ms"] = json!(difference);
    }
    if !all.crun.is_empty() {
        report["crun"] = json!({ "task": all.crun.summary()? });
        let ratio = all.ours.whole.median() / all.crun.median();
        report["ratio_of_medians"] = json!(ratio);
    }
    let mut rate = Samples::new(PER_SECOND);
    rate.push(if all.crun.is_empty() && all.other.whole.is_empty() {
        all.ours.whole.values().len() as f64 / seconds
    } else {
        // Of the time that was not spent on the others.
        clients as f64 * 1e3 / mean(all.ours.whole.values())
    });
    report["tasks_per_second"] = rate.summary()?;
    Ok(report)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
