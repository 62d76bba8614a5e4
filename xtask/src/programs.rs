//! `cargo xtask programs`: programs that others have written and built, under containerd, on each
//! engine: each does its work over a directory of the host, and what comes of it is checked.

mod package;
mod workload;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cargo;
use crate::containerd::{Containerd, Release};
use crate::debian;
use crate::e2e::Tally;
use crate::error::{Context, Result, ensure, error};
use crate::image::{Entry, Image};
use crate::process;
use crate::wasmedge;

use workload::{GAPS, Gap, MOUNT, PROGRAMS, Program};

const IMAGE: &str = "programs.invalid/all:1";

/// For one run, with compiling.
const DEADLINE: Duration = Duration::from_secs(90);

/// The same where LLVM compiles: Ruby takes it six minutes.
const LONG_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How long containerd and a shim may take to clean up after a run.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// An engine and the runtime that has it.
struct Engine {
    name: &'static str,
    runtime: &'static str,
    /// Whether the second start finds native code in the cache.
    compiles: bool,
    deadline: Duration,
}

const ENGINES: [Engine; 4] = [
    Engine {
        name: "Wasmtime",
        runtime: "io.containerd.wasmtime.v1",
        compiles: true,
        deadline: DEADLINE,
    },
    Engine {
        name: "Wasmer",
        runtime: "io.containerd.wasmer.v1",
        compiles: true,
        deadline: DEADLINE,
    },
    Engine {
        name: "WasmEdge",
        runtime: "io.containerd.wasmedge.v1",
        compiles: true,
        deadline: LONG_DEADLINE,
    },
    Engine {
        name: "wasmi",
        runtime: "io.containerd.wasmi.v1",
        compiles: false,
        deadline: DEADLINE,
    },
];

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    let only = match args {
        [] => None,
        [option] if option == "--markdown" => {
            print!("{}", table());
            return Ok(ExitCode::SUCCESS);
        }
        [option, text] if option == "--only" => Some(text.as_str()),
        _ => {
            return Err(error!("programs takes --only TEXT, --markdown or nothing"));
        }
    };
    debian::require_root("programs")?;
    debian::install_missing()?;
    let shims = match std::env::var_os("SHIMWRIGHT_SHIM_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            println!("==> building the shims");
            let shims = cargo::build_binaries(&cargo::SHIMS)?;
            wasmedge::build()?;
            shims
        }
    };
    let tally = run(&shims, only)?;
    println!("\n{tally}");
    ensure!(
        tally.passed + tally.failed > 0 || only.is_none(),
        "no program and no engine has such a name"
    );
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// CPython for WASI.
pub(crate) fn python() -> Result<Vec<u8>> {
    workload::PYTHON.read()
}

/// Runs the programs on the engines, or those of them whose names hold a text.
pub(crate) fn run(shims: &Path, only: Option<&str>) -> Result<Tally> {
    println!("==> programs of others with containerd {}", Release::V2);
    let image = image()?;
    let mut tally = Tally::default();
    let mut running = None;
    for program in PROGRAMS {
        for engine in &ENGINES {
            let name = format!("{} on {}", program.name, engine.name);
            if only.is_some_and(|text| !name.contains(text)) {
                continue;
            }
            let containerd = match running.take() {
                Some(containerd) => containerd,
                None => {
                    let containerd = Containerd::start(Release::V2, &[shims])?;
                    containerd.import(&image)?;
                    containerd
                }
            };
            case(&containerd, program, engine, &name, &mut tally)?;
            // The next one is not to fail because of what this one has left.
            running = containerd
                .ground()
                .leftovers()
                .is_empty()
                .then_some(containerd);
        }
    }
    Ok(tally)
}

/// An image with all programs.
fn image() -> Result<Image> {
    let mut files = vec![Entry::directory(MOUNT.trim_start_matches('/'))];
    // The same program may do several works.
    let binaries: BTreeMap<_, _> = PROGRAMS
        .iter()
        .map(|program| (path(program), program.binary))
        .collect();
    for (path, binary) in binaries {
        files.push(Entry::file(path, binary.read()?));
    }
    Ok(Image::of_files(IMAGE, &["/none"], files))
}

/// Where a program is in the image.
fn path(program: &Program) -> String {
    let file = Path::new(program.binary.path).file_name();
    format!("/{}", file.unwrap_or_default().to_string_lossy())
}

fn gap(program: &Program, engine: &Engine) -> Option<&'static Gap> {
    GAPS.iter()
        .find(|gap| gap.program == program.name && gap.engine == engine.name)
}

/// Runs a program on an engine, a second time from the cache if there is one, and says how it went.
fn case(
    containerd: &Containerd,
    program: &Program,
    engine: &Engine,
    name: &str,
    tally: &mut Tally,
) -> Result<()> {
    let gap = gap(program, engine);
    let runs = if engine.compiles && gap.is_none() {
        2
    } else {
        1
    };
    let mut seconds = Vec::new();
    let mut outcome = Ok(());
    for _ in 0..runs {
        let begin = Instant::now();
        outcome = once(containerd, program, engine);
        process::check_interrupt()?;
        seconds.push(format!("{:.1} s", begin.elapsed().as_secs_f32()));
        if outcome.is_err() {
            break;
        }
    }
    let seconds = seconds.join(", again ");
    match verdict(outcome, gap) {
        Verdict::Passed => {
            println!("  ok      {name} ({seconds})");
            tally.passed += 1;
        }
        Verdict::Gap(reason) => println!("  gap     {name} ({seconds}): {reason}"),
        Verdict::Failed(problem) => {
            println!("  FAILED  {name} ({seconds})");
            println!("      {}", problem.replace('\n', "\n      "));
            tally.failed += 1;
        }
    }
    Ok(())
}

/// What is thought of a run.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It has failed as it is known to.
    Gap(&'static str),
    Failed(String),
}

fn verdict(outcome: Result<()>, gap: Option<&Gap>) -> Verdict {
    match (outcome, gap) {
        (Ok(()), None) => Verdict::Passed,
        (Err(problem), Some(gap)) if problem.to_string().contains(gap.shows) => {
            Verdict::Gap(gap.reason)
        }
        (Ok(()), Some(gap)) => {
            Verdict::Failed(format!("it runs, and is no gap any more: {}", gap.reason))
        }
        (Err(problem), Some(gap)) => {
            Verdict::Failed(format!("not for the reason {:?}: {problem}", gap.shows))
        }
        (Err(problem), None) => Verdict::Failed(problem.to_string()),
    }
}

/// Runs a program over a directory of its own and checks everything that comes of it.
fn once(containerd: &Containerd, program: &Program, engine: &Engine) -> Result<()> {
    let work = Work::new(containerd, program)?;
    let mut ctr = containerd.ctr_run(engine.runtime);
    let mount = format!(
        "type=bind,src={},dst={MOUNT},options=rbind:rw",
        work.0.display()
    );
    ctr.args(["--rm", "--mount", &mount, IMAGE, "program"]);
    ctr.arg(path(program)).args(program.args);
    let finished = process::run(ctr, engine.deadline)?;
    containerd.ground().await_clean(CLEAN_UP)?;
    ensure!(
        finished.code == 0 && finished.stdout == program.stdout,
        "expected exit code 0 and stdout {:?}, but got {} and {:?}; stderr {:?}",
        program.stdout,
        finished.code,
        finished.stdout,
        finished.stderr
    );
    for (name, begin) in program.made {
        let path = work.0.join(name);
        let bytes = fs::read(&path).context(format_args!("read {name}"))?;
        ensure!(
            bytes.starts_with(begin.as_bytes()),
            "{name} begins with {:?} instead of {begin:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(100)])
        );
    }
    Ok(())
}

/// The directory that a program works on, gone when dropped.
struct Work(PathBuf);

impl Work {
    fn new(containerd: &Containerd, program: &Program) -> Result<Self> {
        let work = Self(containerd.directory().join("work"));
        fs::create_dir(&work.0).context(format_args!("create {}", work.0.display()))?;
        for (name, text) in program.given {
            fs::write(work.0.join(name), text)?;
        }
        Ok(work)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The table for `docs/conformance.md`.
fn table() -> String {
    let mut table = String::from("| Program | What it does |");
    let mut line = String::from("| --- | --- |");
    for engine in &ENGINES {
        // A `String` takes everything.
        let _ = write!(table, " {} |", engine.name);
        line.push_str(" --- |");
    }
    let _ = writeln!(table, "\n{line}");
    for program in PROGRAMS {
        let _ = write!(table, "| {} | {} |", program.name, program.does);
        for engine in &ENGINES {
            let _ = match gap(program, engine) {
                None => write!(table, " runs |"),
                Some(gap) => write!(table, " gap: {} |", gap.reason),
            };
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_the_one_that_is_tested() {
        let path = cargo::workspace_root().join("docs/conformance.md");
        let page = fs::read_to_string(path).unwrap();
        let table = table();
        assert!(page.contains(&table), "docs/conformance.md lacks:\n{table}");
    }

    #[test]
    fn a_gap_excuses_its_own_failure_only() {
        let gap = Gap {
            program: "x",
            engine: "y",
            reason: "why",
            shows: "missing import",
        };
        let failed = |text: &str| Err(error!("{text}"));
        assert_eq!(verdict(Ok(()), None), Verdict::Passed);
        let excused = verdict(failed("125: missing import"), Some(&gap));
        assert_eq!(excused, Verdict::Gap("why"));
        for (outcome, gap) in [
            (Ok(()), Some(&gap)),
            (failed("out of memory"), Some(&gap)),
            (failed("125: missing import"), None),
        ] {
            assert!(matches!(verdict(outcome, gap), Verdict::Failed(_)));
        }
    }

    #[test]
    fn every_gap_is_of_a_program_and_an_engine() {
        for Gap {
            program, engine, ..
        } in GAPS
        {
            assert!(
                PROGRAMS.iter().any(|known| known.name == *program)
                    && ENGINES.iter().any(|known| known.name == *engine),
                "there is no {program} on {engine}"
            );
        }
    }
}
