//! `cargo xtask e2e`: our shims under real containerd, in each version we support.
//!
//! A test is a function and a line in the table of its module. To add one, write both.

mod create;
mod daemon;
mod docker;
mod engine;
mod exec;
mod file;
mod kubelet;
mod kubernetes;
mod linux;
mod method;
mod options;
mod pod;
mod program;
mod signal;
mod stage;
mod task;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::cargo;
use crate::containerd::{self, Containerd, Release};
use crate::debian;
use crate::error::{Result, ensure, error};
use crate::process;
use crate::wasmedge;

use stage::Stage;

/// How long containerd and a shim may take to clean up after a task.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// One behaviour.
struct Case {
    name: &'static str,
    needs: Needs,
    /// Whether it also needs Docker.
    docker: bool,
    run: fn(&mut Stage) -> Result<()>,
}

/// What a case can be run with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Our shims: because of WebAssembly, or because runc's does not do this.
    Ours,
    /// The same, and a containerd that knows layers of WebAssembly.
    WasmLayers,
    /// The same as ours, and a `ctr` with an option for the user.
    UserOption,
    /// Anything that runs containers, also runc.
    AnyRuntime,
}

impl Case {
    const fn new(name: &'static str, needs: Needs, run: fn(&mut Stage) -> Result<()>) -> Self {
        let docker = false;
        Self {
            name,
            needs,
            docker,
            run,
        }
    }

    const fn docker(name: &'static str, needs: Needs, run: fn(&mut Stage) -> Result<()>) -> Self {
        let docker = true;
        Self {
            name,
            needs,
            docker,
            run,
        }
    }
}

/// Every case, in the order they run.
fn cases() -> impl Iterator<Item = &'static Case> {
    let tables: [&[Case]; 13] = [
        program::CASES,
        engine::CASES,
        create::CASES,
        file::CASES,
        signal::CASES,
        linux::CASES,
        exec::CASES,
        task::CASES,
        options::CASES,
        pod::CASES,
        daemon::CASES,
        docker::CASES,
        kubernetes::CASES,
    ];
    tables.into_iter().flatten()
}

/// How many cases passed and failed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// What the user asked for.
pub(crate) struct Selection {
    releases: Vec<Release>,
    only: Option<String>,
    runtime: Option<String>,
}

impl Selection {
    /// Every case on every containerd.
    pub(crate) fn all() -> Self {
        Self {
            releases: Release::ALL.to_vec(),
            only: None,
            runtime: None,
        }
    }

    fn parse(args: &[String]) -> Result<Self> {
        let mut selection = Self::all();
        let mut args = args.iter();
        while let Some(option) = args.next() {
            let value = args
                .next()
                .ok_or_else(|| error!("{option} needs a value"))?;
            match option.as_str() {
                "--containerd" => selection.releases = vec![Release::parse(value)?],
                "--only" => selection.only = Some(value.clone()),
                // To tell a fault of this harness from one of a shim, try with runc's.
                "--runtime" => selection.runtime = Some(value.clone()),
                unknown => {
                    return Err(error!(
                        "e2e does not know {unknown}, but --containerd, --only and --runtime"
                    ));
                }
            }
        }
        Ok(selection)
    }

    fn includes(&self, case: &Case, release: Release) -> bool {
        let possible = match case.needs {
            Needs::Ours => self.runtime.is_none(),
            Needs::WasmLayers => self.runtime.is_none() && release.has_wasm_layers(),
            Needs::UserOption => self.runtime.is_none() && release.has_user_option(),
            Needs::AnyRuntime => true,
        };
        possible
            && (!case.docker || release.has_docker())
            && self
                .only
                .as_ref()
                .is_none_or(|text| case.name.contains(text))
    }
}

pub(crate) fn main(args: &[String]) -> Result<ExitCode> {
    if args == ["--methods"] {
        print!("{}", method::table()?);
        return Ok(ExitCode::SUCCESS);
    }
    let selection = Selection::parse(args)?;
    debian::require_root("e2e")?;
    debian::install_missing()?;
    let shims = match std::env::var_os("SHIMWRIGHT_SHIM_DIR") {
        _ if selection.runtime.is_some() => None,
        Some(directory) => Some(PathBuf::from(directory)),
        None => {
            println!("==> building the shims");
            let shims = cargo::build_binaries(&cargo::SHIMS)?;
            wasmedge::build()?;
            Some(shims)
        }
    };
    let tally = run(&selection, shims.as_deref())?;
    println!("\n{tally}");
    ensure!(tally.passed + tally.failed > 0, "no test has such a name");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the selected cases with the shims of a directory, or with the runtime of the selection.
pub(crate) fn run(selection: &Selection, shims: Option<&Path>) -> Result<Tally> {
    let runtime = selection
        .runtime
        .as_deref()
        .unwrap_or("io.containerd.wasmtime.v1");
    let tools = containerd::tools()?;
    for &release in &selection.releases {
        containerd::binaries(release)?;
    }
    let guests = shims.map(|_| guests()).transpose()?;
    let runc = tools.join("usr/sbin");
    let path: Vec<_> = shims.into_iter().chain([runc.as_path()]).collect();
    let busybox = tools.join("bin/busybox");
    let cri = cargo::build_cri_client()?;
    let mut tally = Tally::default();
    for &release in &selection.releases {
        println!("==> end to end with containerd {release}");
        let mut stage = None;
        for case in cases().filter(|case| selection.includes(case, release)) {
            let current = match stage.take() {
                Some(stage) => stage,
                None => {
                    let containerd = Containerd::start_for_pods(release, &path)?;
                    Stage::new(containerd, runtime, guests.as_ref(), &busybox, &cri)?
                }
            };
            stage = run_case(case, current, &mut tally)?;
        }
    }
    Ok(tally)
}

/// Runs one case, and returns the stage unless something is left on it.
fn run_case(case: &Case, mut stage: Stage, tally: &mut Tally) -> Result<Option<Stage>> {
    let begin = Instant::now();
    stage.enter(case.name);
    let result = (case.run)(&mut stage);
    let clean = stage.containerd().ground().await_clean(CLEAN_UP);
    process::check_interrupt()?;
    let seconds = begin.elapsed().as_secs_f32();
    let reuse = clean.is_ok();
    let problems: Vec<_> = [result.err(), clean.err()].into_iter().flatten().collect();
    if problems.is_empty() {
        println!("  ok      {} ({seconds:.1} s)", case.name);
        tally.passed += 1;
    } else {
        println!("  FAILED  {} ({seconds:.1} s)", case.name);
        for problem in problems {
            println!("      {}", problem.to_string().replace('\n', "\n      "));
        }
        tally.failed += 1;
    }
    Ok(reuse.then_some(stage))
}

/// A directory with every guest program, as `<name>.wasm`.
fn guests() -> Result<tempfile::TempDir> {
    println!("==> building the guest programs");
    let directory = tempfile::Builder::new()
        .prefix("shimwright-guests-")
        .tempdir()?;
    export_guests(directory.path())?;
    Ok(directory)
}

/// Writes the guest programs into a directory.
pub(crate) fn export_guests(directory: &Path) -> Result<()> {
    let built = cargo::build(&["build", "--release", "--workspace", "--example", "export"])?;
    let export: Option<&PathBuf> = built.iter().find(|path| path.ends_with("export"));
    let mut command = Command::new(export.ok_or_else(|| error!("cargo has not built `export`"))?);
    command.arg(directory);
    process::run(command, containerd::SHORT)?.success()?;
    Ok(())
}
