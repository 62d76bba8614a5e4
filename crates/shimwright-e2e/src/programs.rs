//! Programs that others have written and built, under containerd, on each engine: each does its work
//! over a directory of the host, and what comes of it is checked.

mod workload;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use shimwright_engines::Engine;
use shimwright_testenv::containerd::{Containerd, Release};
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::image::{Entry, Image};
use shimwright_testenv::process;

use crate::runner::{CLEAN_UP, SHIM_DIR};

use workload::{GAPS, Gap, MOUNT, PROGRAMS, Program};

const IMAGE: &str = "programs.invalid/all:1";

/// For one run, with compiling.
const DEADLINE: Duration = Duration::from_secs(90);

/// Runs the programs on the engines. A known gap is reported as ignored, with its reason.
pub(crate) fn run(harness: &libtest_mimic::Arguments) -> Result<ExitCode> {
    let shims = std::env::var_os(SHIM_DIR).map(PathBuf::from);
    ensure!(
        shims.is_some() || harness.list,
        "{SHIM_DIR} is not set: run `cargo xtask programs`"
    );
    let ground = Arc::new(Ground {
        shims: shims.unwrap_or_default(),
        containerd: Mutex::new(None),
    });
    let mut trials = Vec::new();
    for program in PROGRAMS {
        for engine in shimwright_engines::ALL {
            let ground = Arc::clone(&ground);
            let name = format!("{} on {}", program.name, engine.title);
            let run = move || ground.run(program, engine).map_err(Failed::from);
            trials.push(Trial::ignorable_test(name, run));
        }
    }
    drop(ground);
    Ok(libtest_mimic::run(harness, trials).exit_code())
}

/// Where the programs run.
struct Ground {
    shims: PathBuf,
    /// That of the last run, unless something was left there.
    containerd: Mutex<Option<Containerd>>,
}

impl Ground {
    fn run(&self, program: &Program, engine: &Engine) -> Result<Completion> {
        process::check_interrupt()?;
        let running = self.containerd.lock();
        let mut running = running.unwrap_or_else(PoisonError::into_inner);
        let containerd = match running.take() {
            Some(containerd) => containerd,
            None => {
                let containerd = Containerd::start(Release::V2, &[&self.shims])?;
                containerd.import(&image()?)?;
                containerd
            }
        };
        let gap = gap(program, engine);
        let mut outcome = once(&containerd, program, engine);
        // The second start finds native code in the cache.
        if outcome.is_ok() && engine.compiles() && gap.is_none() {
            outcome = once(&containerd, program, engine);
        }
        process::check_interrupt()?;
        // The next one is not to fail because of what this one has left.
        if containerd.ground().leftovers().is_empty() {
            *running = Some(containerd);
        }
        verdict(outcome, gap)
    }
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
        .find(|gap| gap.program == program.name && gap.engine == engine.title)
}

/// What is thought of a run.
fn verdict(outcome: Result<()>, gap: Option<&Gap>) -> Result<Completion> {
    match (outcome, gap) {
        (Ok(()), None) => Ok(Completion::Completed),
        (Err(problem), Some(gap)) if problem.to_string().contains(gap.shows) => {
            Ok(Completion::ignored_with(gap.reason))
        }
        (Ok(()), Some(gap)) => Err(error!("it runs, and is no gap any more: {}", gap.reason)),
        (Err(problem), Some(gap)) => Err(error!("not for the reason {:?}: {problem}", gap.shows)),
        (Err(problem), None) => Err(problem),
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
    ctr.args(["--rm", "--mount", &mount]);
    if let Some(options) = engine.fast_compilation {
        let file = containerd.directory().join("options.toml");
        fs::write(&file, options)?;
        ctr.arg("--runtime-config-path").arg(file);
    }
    ctr.args([IMAGE, "program"]);
    ctr.arg(path(program)).args(program.args);
    let finished = process::run(ctr, DEADLINE)?;
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
pub(crate) fn table() -> String {
    let mut table = String::from("| Program | What it does |");
    let mut line = String::from("| --- | --- |");
    for engine in shimwright_engines::ALL {
        // A `String` takes everything.
        let _ = write!(table, " {} |", engine.title);
        line.push_str(" --- |");
    }
    let _ = writeln!(table, "\n{line}");
    for program in PROGRAMS {
        let _ = write!(table, "| {} | {} |", program.name, program.does);
        for engine in shimwright_engines::ALL {
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
        let path = shimwright_testenv::workspace::root().join("docs/conformance.md");
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
        let is_gap = |outcome, gap| match verdict(outcome, gap) {
            Ok(Completion::Ignored { reason }) => reason.as_deref() == Some("why"),
            _ => false,
        };
        assert!(is_gap(failed("125: missing import"), Some(&gap)));
        assert!(matches!(verdict(Ok(()), None), Ok(Completion::Completed)));
        for (outcome, gap) in [
            (Ok(()), Some(&gap)),
            (failed("out of memory"), Some(&gap)),
            (failed("125: missing import"), None),
        ] {
            assert!(verdict(outcome, gap).is_err());
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
                    && shimwright_engines::ALL
                        .iter()
                        .any(|known| known.title == *engine),
                "there is no {program} on {engine}"
            );
        }
    }
}
