//! The scenarios in their order, each by a process of `scenario`, into one report.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use shimwright_engines::DEFAULT;
use shimwright_testenv::containerd::{self, Containerd, Release};
use shimwright_testenv::error::{Context, Result};
use shimwright_testenv::image::{Entry, Image};
use shimwright_testenv::package::CPYTHON;
use shimwright_testenv::process::{self, Process};

use super::options::{FEW, Options};
use crate::cargo;
use crate::guests;

/// For one scenario.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// How long a scenario may take to remove hundreds of containers when it is interrupted.
const GRACE: Duration = Duration::from_secs(60);

/// The hierarchy of version 2 beside those of version 1, with which crun does not run anything if it
/// has a controller.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Everything that the scenarios need.
pub(super) struct Bench<'a> {
    options: &'a Options,
    scenario: PathBuf,
    shim: PathBuf,
    /// Guests, the same programs for this machine, and CPython.
    programs: tempfile::TempDir,
    /// Of runc and its shim.
    tools: PathBuf,
    runc_shim: PathBuf,
}

impl<'a> Bench<'a> {
    pub(super) fn prepare(options: &'a Options) -> Result<Self> {
        println!("==> building the benchmarks and the shim");
        let built = cargo::build_binaries(&["scenario", DEFAULT.shim])?;
        let programs = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
        guests::export(programs.path())?;
        for name in ["hello", "idle"] {
            compile(name, &programs.path().join(name))?;
        }
        fs::write(programs.path().join("python.wasm"), CPYTHON.read()?)?;
        let shim = match &options.shim {
            Some(shim) => shim.clone(),
            None => install(&built.join(DEFAULT.shim), programs.path())?,
        };
        Ok(Self {
            options,
            scenario: built.join("scenario"),
            shim,
            programs,
            tools: containerd::tools()?,
            runc_shim: containerd::binaries(Release::V1_7)?.join("containerd-shim-runc-v2"),
        })
    }

    /// Runs all of them.
    pub(super) fn run(&self) -> Result<Value> {
        let mut report = json!({ "date": date()?, "quick": self.options.quick });
        self.add_tasks(&mut report)?;
        self.add_requests(&mut report)?;
        self.add_density(&mut report)?;
        self.add(&mut report, "compute", || self.compute())?;
        if let Some(peer) = &self.options.peer {
            self.add_peer(&mut report, peer)?;
        }
        Ok(report)
    }

    /// Starts, tasks and the command `ctr run`.
    fn add_tasks(&self, report: &mut Value) -> Result<()> {
        self.add(report, "startup", || {
            self.scenario("startup", &self.shim, &["--guest", "hello.wasm"], 20)
        })?;
        self.add(report, "churn_1", || self.against_crun())?;
        for clients in ["4", "8", "16"] {
            let name = format!("churn_{clients}");
            self.add(report, &name, || self.churn(&self.shim, clients))?;
        }
        self.add(report, "second_start", || self.second_start(&self.shim))?;
        self.add(report, "ctr_run", || self.ctr_run())
    }

    /// Requests to a handler, beside Wasmtime's command line if there is one.
    fn add_requests(&self, report: &mut Value) -> Result<()> {
        let wasmtime = self.options.wasmtime.as_ref();
        let wasmtime = wasmtime.map(|path| path.display().to_string());
        let beside = wasmtime.as_deref().map(|path| ["--wasmtime", path]);
        let beside = beside.as_ref().map_or(&[][..], |more| more);
        self.add(report, "http", || self.http(&self.shim, beside))?;
        self.add(report, "http_reuse", || {
            self.http(&self.shim, &[beside, &["--reuse", "128"]].concat())
        })
    }

    /// Idle containers, beside those of runc.
    fn add_density(&self, report: &mut Value) -> Result<()> {
        let at = [FEW, 100, 250].map(|number| number.to_string());
        let at = at.iter().flat_map(|number| ["--at", number]);
        let at: Vec<_> = at.collect();
        let containers = self.options.containers().to_string();
        self.add(report, "density", || {
            self.idle(&self.shim, "idle.wasm", &containers, &at)
        })?;
        self.add(report, "density_shared", || {
            let more = [&at[..], &["--shared"]].concat();
            self.idle(&self.shim, "idle.wasm", &containers, &more)
        })?;
        self.add(report, "idle_runc", || {
            let path = self.tools.join("usr/sbin").display().to_string();
            let more = ["--path", &path];
            self.idle(&self.runc_shim, "idle", &FEW.to_string(), &more)
        })
    }

    /// The same with the shim of somebody else.
    fn add_peer(&self, report: &mut Value, peer: &Path) -> Result<()> {
        for clients in ["1", "8"] {
            let name = format!("peer_churn_{clients}");
            self.add(report, &name, || self.churn(peer, clients))?;
        }
        self.add(report, "peer_second_start", || self.second_start(peer))?;
        self.add(report, "peer_http", || self.http(peer, &[]))?;
        self.add(report, "peer_idle", || {
            self.idle(peer, "idle.wasm", &FEW.to_string(), &[])
        })
    }

    /// Adds what a scenario reports, if it is one that the user wants.
    fn add(
        &self,
        report: &mut Value,
        name: &str,
        run: impl FnOnce() -> Result<Value>,
    ) -> Result<()> {
        if !self.options.includes(name) {
            return Ok(());
        }
        println!("==> {name}");
        let mut found = run().context(format_args!("measure {name}"))?;
        // Once is enough.
        if let Some(machine) = found.as_object_mut().and_then(|all| all.remove("machine")) {
            report["machine"] = machine;
        }
        report[name] = found;
        Ok(())
    }

    /// The tasks of a hello module and, in turns, of the same program for this machine by crun.
    fn against_crun(&self) -> Result<Value> {
        let more = [
            "--guest",
            "hello.wasm",
            "--crun",
            "crun",
            "--native",
            "hello",
        ];
        let mut command = self.command("churn", &self.shim, &more, 200);
        let controllers = Path::new(UNIFIED).join("cgroup.controllers");
        if fs::read_to_string(controllers).is_ok_and(|text| !text.trim().is_empty()) {
            command = without_unified(&command);
        }
        self.report(command)
    }

    fn churn(&self, shim: &Path, clients: &str) -> Result<Value> {
        self.scenario(
            "churn",
            shim,
            &["--guest", "hello.wasm", "-c", clients],
            200,
        )
    }

    /// The tasks of a hello module and, in turns, of CPython, both compiled before.
    fn second_start(&self, shim: &Path) -> Result<Value> {
        let other = ["--other", "python.wasm", "--other-arg", "-V"];
        let more = [&["--guest", "hello.wasm"], &other[..]].concat();
        self.scenario("churn", shim, &more, 50)
    }

    fn http(&self, shim: &Path, more: &[&str]) -> Result<Value> {
        let more = [&["--guest", "http.component.wasm", "-c", "16"], more].concat();
        self.scenario("http", shim, &more, 20_000)
    }

    fn idle(&self, shim: &Path, program: &str, containers: &str, more: &[&str]) -> Result<Value> {
        let mut command = self.base("idle");
        command.arg("--shim").arg(shim);
        command
            .args(["--guest", program, "-n", containers])
            .args(more);
        self.report(command)
    }

    fn compute(&self) -> Result<Value> {
        let wasmtime = self.options.wasmtime.as_ref();
        let cli = wasmtime.map(|path| format!("wasmtime={}", path.display()));
        let cli = cli.as_deref().map(|cli| ["--cli", cli]);
        let more = [
            &["--python", "python.wasm"][..],
            cli.as_ref().map_or(&[], |cli| &cli[..]),
        ];
        self.scenario("compute", &self.shim, &more.concat(), 10)
    }

    /// The command `ctr run --rm` with the shim and, in turns, with runc's.
    fn ctr_run(&self) -> Result<Value> {
        let sbin = self.tools.join("usr/sbin");
        let containerd = Containerd::start(Release::V1_7, &[&sbin])?;
        let shim = self.shim.display().to_string();
        let mut commands = Vec::new();
        for (name, runtime, program) in [
            ("shim", shim.as_str(), "hello.wasm"),
            ("runc", "io.containerd.runc.v2", "hello"),
        ] {
            let image = format!("bench.invalid/{name}:1");
            let content = fs::read(self.programs.path().join(program))?;
            let entrypoint = format!("/{program}");
            let files = vec![Entry::file(program, content)];
            containerd.import(&Image::of_files(&image, &[&entrypoint], files))?;
            let mut ctr = containerd.ctr_run(runtime);
            ctr.args(["--rm", &image, name]);
            commands.push(format!("{name}={}", json!(words(&ctr))));
        }
        let mut command = self.base("commands");
        // What `ctr` was told by its environment.
        command.env("TMPDIR", containerd.directory().join("tmp"));
        command.args(commands.iter().flat_map(|text| ["--command", text]));
        command.args(["-n", &self.options.samples(50).to_string()]);
        let report = self.report(command)?;
        containerd.ground().await_clean(Duration::from_secs(5))?;
        Ok(report)
    }

    fn scenario(&self, name: &str, shim: &Path, more: &[&str], usual: usize) -> Result<Value> {
        self.report(self.command(name, shim, more, usual))
    }

    fn command(&self, name: &str, shim: &Path, more: &[&str], usual: usize) -> Command {
        let mut command = self.base(name);
        command.arg("--shim").arg(shim).args(more);
        command.args(["-n", &self.options.samples(usual).to_string()]);
        command
    }

    /// The scenario among the programs, which may be named without a directory.
    fn base(&self, name: &str) -> Command {
        let mut command = Command::new(&self.scenario);
        command.arg(name).current_dir(self.programs.path());
        command
    }

    fn report(&self, mut command: Command) -> Result<Value> {
        command.stdout(Stdio::piped());
        let process = Process::spawn_as_is(command)?;
        let text = process.finish_or_ask(DEADLINE, GRACE)?.success()?;
        serde_json::from_str(&text).context("read the report of a scenario")
    }
}

/// Copies a shim as an installation does. What a linker has just written lies in the page cache page by
/// page, which makes starts a seventh slower than those of a file that was copied or read.
fn install(shim: &Path, directory: &Path) -> Result<PathBuf> {
    let installed = directory.join(DEFAULT.shim);
    fs::copy(shim, &installed).context("install the shim")?;
    Ok(installed)
}

/// The same command where that hierarchy is not mounted.
fn without_unified(command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "sh",
        "-c",
        r#"umount "$0" && exec "$@""#,
        UNIFIED,
    ]);
    unshare.args(words_of(command));
    if let Some(directory) = command.get_current_dir() {
        unshare.current_dir(directory);
    }
    unshare
}

fn words_of(command: &Command) -> impl Iterator<Item = OsString> {
    let program = std::iter::once(command.get_program());
    program.chain(command.get_args()).map(OsString::from)
}

fn words(command: &Command) -> Vec<String> {
    words_of(command)
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// Compiles a guest's source for this machine, as a static program.
fn compile(guest: &str, target: &Path) -> Result<()> {
    let source = shimwright_testenv::workspace::root()
        .join(format!("crates/shimwright-guests/guests/{guest}.c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-O2", "-o"]).arg(target).arg(source);
    process::run(gcc, containerd::LONG)?.success()?;
    Ok(())
}

fn date() -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "+%Y-%m-%d %H:%M UTC"]);
    Ok(process::run(date, containerd::SHORT)?
        .success()?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_keeps_its_words_and_its_directory() {
        let mut command = Command::new("scenario");
        command.args(["churn", "a b"]).current_dir("/tmp");
        let changed = without_unified(&command);
        assert_eq!(changed.get_current_dir(), Some(Path::new("/tmp")));
        assert!(words(&changed).ends_with(&words(&command)));
    }
}
