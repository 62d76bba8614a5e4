//! What is measured of each engine, and how.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use shimwright_benches::driver::{self, Program};
use shimwright_benches::{Error, Result, churn, compute, idle, interrupt, startup, stats};
use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::Containerd;
use shimwright_testkit::protos::ttrpc;

use crate::conformance::{self, Conformance};

/// How long a program of the user's may run.
const BOUND: Duration = Duration::from_secs(60);

/// What is run.
pub(crate) enum Subject {
    /// The sample programs, with these works.
    Samples(Vec<compute::Work>),
    App(Program),
}

impl Subject {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Samples(_) => "the sample programs".to_owned(),
            Self::App(program) => program.name().to_owned(),
        }
    }

    /// The program whose starts are measured.
    fn program(&self) -> Program {
        match self {
            Self::Samples(_) => Program::from(HELLO),
            Self::App(program) => program.clone(),
        }
    }
}

/// One thing that is measured of every engine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    /// What it is, in a sentence.
    pub(crate) meaning: String,
}

/// A measurement, or why there is none.
pub(crate) type Cell = std::result::Result<Measured, String>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) median: f64,
    pub(crate) q1: f64,
    pub(crate) q3: f64,
}

impl Measured {
    /// Something that does not vary.
    fn exactly(value: f64) -> Self {
        let (q1, median, q3) = (value, value, value);
        Self { median, q1, q3 }
    }

    /// A measurement of a report, in another unit.
    fn of(report: &Value, divided_by: f64) -> Option<Self> {
        let [q1, median, q3] = ["q1", "median", "q3"].map(|name| report[name].as_f64());
        Some(Self {
            median: median? / divided_by,
            q1: q1? / divided_by,
            q3: q3? / divided_by,
        })
    }
}

/// An engine and the shim that has it.
pub(crate) struct Engine {
    name: String,
    shim: PathBuf,
}

impl Engine {
    pub(crate) fn new(name: &str, shim: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            shim,
        }
    }
}

/// What was found of an engine, a cell for each row.
pub(crate) struct Column {
    pub(crate) engine: String,
    pub(crate) cells: Vec<Cell>,
    pub(crate) conformance: Option<Conformance>,
}

/// Everything that is measured, in the order of [`measure`].
pub(crate) fn rows(subject: &Subject) -> Vec<Row> {
    let row = |name: &str, unit, meaning: &str| Row {
        name: name.to_owned(),
        unit,
        more_is_better: unit == stats::PER_SECOND,
        meaning: meaning.to_owned(),
    };
    let what = match subject {
        Subject::Samples(_) => "a program that prints a line",
        Subject::App(_) => "your program",
    };
    let mut rows = vec![
        row(
            "cold start",
            "ms",
            &format!(
                "From starting the shim until the container is deleted, for {what} in bytes that have never been compiled."
            ),
        ),
        row(
            "warm start",
            "ms",
            "The same when the compiled program is in the cache; an interpreter has none.",
        ),
        row(
            "runs per second",
            "1/s",
            &format!("Whole lives of {what}, one after the other in one shim."),
        ),
    ];
    match subject {
        Subject::Samples(works) => {
            rows.push(row(
                "memory, idle",
                "MB",
                "Proportional set size of a waiting container, runner and shim, of 5 that have a shim each.",
            ));
            rows.extend(works.iter().map(|work| {
                let meaning = format!("The work alone, by the guest's own clock: {}.", work.does);
                row(&format!("computing, {}", work.name), "ms", &meaning)
            }));
        }
        Subject::App(_) => rows.push(row(
            "memory, most",
            "MB",
            "The largest proportional set size of the runner that was seen while the program ran, looked at every few milliseconds.",
        )),
    }
    rows.extend([
        row(
            "compiled size",
            "KB",
            "What the runner loads: native code, or the WebAssembly binary where nothing is compiled.",
        ),
        row(
            "shim size",
            "MB",
            "The shim's executable, with its shared libraries if it has any.",
        ),
        row(
            "conformance gaps",
            "cases",
            "Cases of the conformance suite that the engine refuses or is known not to pass.",
        ),
    ]);
    rows
}

/// How often [`measure`] tells of a step.
pub(crate) fn steps(subject: &Subject) -> usize {
    match subject {
        Subject::Samples(works) => 4 + works.len(),
        Subject::App(_) => 4,
    }
}

/// Measures an engine. What fails is told in its cell, but an interrupt ends everything.
pub(crate) fn measure(
    engine: Engine,
    subject: &Subject,
    quick: bool,
    step: impl Fn(String),
) -> Result<Column> {
    let step = |what: &str| {
        step(format!("{}: {what}", engine.name));
        interrupt::check()
    };
    let shim = engine.shim.as_path();
    let program = subject.program();
    let times = |usual: usize| if quick { 2 } else { usual };
    let mut cells: Vec<Cell> = Vec::new();

    step("cold and warm starts")?;
    let starts = startup::run(&startup::Options {
        shim: shim.to_owned(),
        program: program.clone(),
        number: times(7),
        bound: BOUND,
    });
    for kind in ["cold", "warm"] {
        cells.push(cell(&starts, |report| {
            Measured::of(&report[kind]["total"], 1.0)
        }));
    }
    step("runs per second")?;
    let runs = match &starts {
        Ok(_) => churn::run(&churn::Options {
            shim: shim.to_owned(),
            program: program.clone(),
            number: times(20),
            clients: 1,
            crun: None,
            other: None,
        }),
        Err(error) => Err(reason(error).into()),
    };
    cells.push(cell(&runs, |report| {
        Measured::of(&report["tasks_per_second"], 1.0)
    }));
    step("memory")?;
    match subject {
        Subject::Samples(works) => {
            let idle = idle_memory(shim);
            cells.push(cell(&idle, |report| {
                let each = &report["memory"][0]["pss_per_container"];
                Measured::of(each, 1e6 / 1024.0)
            }));
            let mut computer = compute::Computer::start(shim);
            for work in works {
                step(work.name)?;
                let done = match &mut computer {
                    Ok(computer) => computed(computer, work, times(3)),
                    Err(error) => Err(reason(error).into()),
                };
                cells.push(cell(&done, |report| Measured::of(report, 1.0)));
            }
        }
        Subject::App(_) => {
            let most = match &starts {
                Ok(_) => most_memory(shim, &program),
                Err(error) => Err(reason(error).into()),
            };
            cells.push(cell(&most, |kib| {
                Some(Measured::exactly(kib * 1024.0 / 1e6))
            }));
        }
    }
    step("sizes")?;
    let size = artifact_size(shim, &program);
    cells.push(cell(&size, |bytes| Some(Measured::exactly(bytes / 1e3))));
    let size = shim_size(shim);
    cells.push(cell(&size, |bytes| {
        Some(Measured::exactly(*bytes as f64 / 1e6))
    }));
    let conformance = conformance::of(&engine.name);
    let gaps = conformance.as_ref().map(|found| found.cases - found.passed);
    let gaps = gaps.ok_or("docs/conformance.md has no section for it");
    cells.push(
        gaps.map(|gaps| Measured::exactly(gaps as f64))
            .map_err(str::to_owned),
    );
    interrupt::check()?;
    Ok(Column {
        engine: engine.name,
        cells,
        conformance,
    })
}

/// What an outcome means for a cell.
fn cell<T>(outcome: &Result<T>, read: impl Fn(&T) -> Option<Measured>) -> Cell {
    match outcome {
        Ok(report) => read(report).ok_or_else(|| "nothing was measured".to_owned()),
        Err(error) => Err(reason(error)),
    }
}

/// What an error says to people; of one that the shim gave, its own words.
fn reason(error: &Error) -> String {
    match error.downcast_ref() {
        Some(ttrpc::Error::RpcStatus(status)) => status.message().to_owned(),
        _ => error.to_string(),
    }
}

fn idle_memory(shim: &Path) -> Result<Value> {
    idle::run(&idle::Options {
        shim: shim.to_owned(),
        program: Program::from(IDLE),
        containers: 5,
        shared: false,
        at: Vec::new(),
        path: None,
    })
}

fn computed(computer: &mut compute::Computer, work: &compute::Work, times: usize) -> Result<Value> {
    let mut samples = stats::Samples::new(stats::MILLISECONDS);
    for _ in 0..times {
        samples.push(computer.run(work)?.0);
    }
    samples.summary()
}

/// The most memory of a program's process while it runs, in KiB.
fn most_memory(shim: &Path, program: &Program) -> Result<f64> {
    let containerd = driver::containerd(shim, None)?;
    let bundle = program.bundle(&containerd, "app", "app")?;
    let (shim, _) = driver::start(&containerd, &bundle)?;
    driver::create(&shim, &bundle)?;
    let pid = shim.start("app")?.cast_signed();
    let mut most = 0;
    std::thread::scope(|scope| -> Result<()> {
        let end = scope.spawn(|| driver::wait(&shim, "app", BOUND));
        while !end.is_finished() {
            // It fails once the process has ended.
            most = most.max(driver::pss(pid).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(2));
        }
        end.join().map_err(|_| "waiting has panicked")??;
        Ok(())
    })?;
    shim.delete("app")?;
    shim.shutdown();
    if most == 0 {
        return Err("it ended before its memory could be read".into());
    }
    Ok(most as f64)
}

/// The size of what the runner loads, in bytes, as the shim itself tells.
fn artifact_size(shim: &Path, program: &Program) -> Result<f64> {
    let containerd = driver::containerd(shim, None)?;
    let bundle = program.bundle(&containerd, "app", "app")?;
    let (shim, _) = driver::start(&containerd, &bundle)?;
    driver::create(&shim, &bundle)?;
    let figure = figure(&containerd, "shimwright_artifact_bytes");
    shim.kill("app", 9)?;
    shim.wait("app")?;
    shim.delete("app")?;
    shim.shutdown();
    figure
}

/// One of the figures that the shim's command `metrics` prints of the only container.
fn figure(containerd: &Containerd, name: &str) -> Result<f64> {
    let directory = containerd.directory().to_string_lossy().into_owned();
    let text = containerd
        .run(
            containerd.directory(),
            &["-bundle", &directory, "metrics"],
            &[],
        )?
        .text()?;
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.ok_or_else(|| format!("the shim does not tell {name}").into())
}

/// The bytes of a shim and of the directory of its shared libraries, which is beside it.
fn shim_size(shim: &Path) -> Result<u64> {
    let mut size = fs::metadata(shim)?.len();
    let engine = shim.file_name().unwrap_or_default().to_string_lossy();
    let engine = engine
        .strip_prefix("containerd-shim-")
        .and_then(|name| name.split('-').next());
    let beside = shim.parent().and_then(Path::parent);
    let (Some(engine), Some(beside)) = (engine, beside) else {
        return Ok(size);
    };
    let directories = fs::read_dir(beside.join("lib/shimwright"))
        .into_iter()
        .flatten();
    for directory in directories.flatten() {
        let name = directory.file_name();
        if name.to_string_lossy().starts_with(&format!("{engine}-")) {
            for file in fs::read_dir(directory.path())?.flatten() {
                size += file.metadata()?.len();
            }
        }
    }
    Ok(size)
}
