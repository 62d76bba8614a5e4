//! What every case stands on: a containerd with our images, and a short way to run containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shimwright_guests::{CAT, Guest, HELLO, HELLO_COMPONENT};
use shimwright_testenv::containerd::{Containerd, LONG, PAUSE, SHORT};
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::image::{self, Entry, Image, Platform};
use shimwright_testenv::process::{self, Finished, Process};

use crate::dockerd::Docker;

/// A root file system with every guest at `/<name>.wasm`.
pub(crate) const GUESTS: &str = "e2e.invalid/guests:1";
/// The same for the platform `wasi/wasm`.
pub(crate) const GUESTS_WASI: &str = "e2e.invalid/guests-wasi:1";
/// The same with a user.
pub(crate) const GUESTS_USER: &str = "e2e.invalid/guests-user:1";
/// Images that are nothing but a program.
pub(crate) const LAYER_MODULE: &str = "e2e.invalid/layer-module:1";
pub(crate) const LAYER_COMPONENT: &str = "e2e.invalid/layer-component:1";
/// An application of two components for the shim of the example, in the root and as layers.
pub(crate) const PIPELINE: &str = "e2e.invalid/pipeline:1";
pub(crate) const LAYER_PIPELINE: &str = "e2e.invalid/layer-pipeline:1";
/// busybox, and an environment.
pub(crate) const LINUX: &str = "e2e.invalid/linux:1";
pub(crate) const LINUX_ENV: [&str; 2] = ["PATH=/bin", "FROM_IMAGE=yes"];

/// Nobody's, so that it shows when somebody else's is used.
pub(crate) const USER: &str = "65533:65533";

/// One containerd, and what the cases need to know.
pub(crate) struct Stage {
    // Before containerd, which it needs as long as it runs.
    docker: Option<Docker>,
    containerd: Containerd,
    busybox: PathBuf,
    runtime: String,
    runs_wasm: bool,
    cri: PathBuf,
    case: &'static str,
    started: usize,
}

impl Stage {
    /// Imports the images. A runtime may run Linux programs only.
    pub(crate) fn new(
        containerd: Containerd,
        runtime: &str,
        runs_wasm: bool,
        busybox: &Path,
        cri: &Path,
    ) -> Result<Self> {
        let program = fs::read(busybox).context("read busybox")?;
        let mut files = vec![Entry::file("bin/busybox", program)];
        files.extend(["dev", "proc", "sys", "tmp"].map(Entry::directory));
        let mut linux = Image::of_files(LINUX, &["/bin/busybox", "env"], files);
        linux.env = LINUX_ENV.map(str::to_owned).to_vec();
        containerd.import(&linux)?;
        containerd.import_for_pods(&linux)?;
        PAUSE.clone_into(&mut linux.name);
        linux.entrypoint = ["/bin/busybox", "sleep", "86400"]
            .map(str::to_owned)
            .to_vec();
        containerd.import_for_pods(&linux)?;
        if runs_wasm {
            import_guests(&containerd)?;
            import_pipelines(&containerd)?;
        }
        Ok(Self {
            docker: None,
            containerd,
            busybox: busybox.to_owned(),
            runtime: runtime.to_owned(),
            runs_wasm,
            cri: cri.to_owned(),
            case: "",
            started: 0,
        })
    }

    /// The next case begins.
    pub(crate) fn enter(&mut self, case: &'static str) {
        self.case = case;
        self.started = 0;
    }

    pub(crate) fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    pub(crate) fn containerd_mut(&mut self) -> &mut Containerd {
        &mut self.containerd
    }

    /// A dockerd on this containerd, which the first case that asks for it starts.
    pub(crate) fn docker(&mut self) -> Result<&mut Docker> {
        let docker = match self.docker.take() {
            Some(docker) => docker,
            None => Docker::start(&self.containerd, &self.busybox)?,
        };
        Ok(self.docker.insert(docker))
    }

    /// The client that calls containerd as a kubelet does.
    pub(crate) fn cri(&self) -> Command {
        Command::new(&self.cri)
    }

    /// The name of the runtime in containerd's configuration for pods.
    pub(crate) fn handler(&self) -> &'static str {
        if self.runs_wasm { "wasmtime" } else { "runc" }
    }

    /// What the containers run with.
    pub(crate) fn runtime(&self) -> &str {
        &self.runtime
    }

    /// Whether it runs WebAssembly.
    pub(crate) fn runs_wasm(&self) -> bool {
        self.runs_wasm
    }

    /// An id that no other container has.
    pub(crate) fn new_id(&mut self) -> String {
        self.started += 1;
        id(self.case, self.started)
    }

    /// A container that runs a guest of the image [`GUESTS`], such as `hello` or `reactor#greet`.
    pub(crate) fn guest(&mut self, entrypoint: &str) -> Container {
        let path = match entrypoint.split_once('#') {
            Some((name, function)) => format!("/{name}.wasm#{function}"),
            None => format!("/{entrypoint}.wasm"),
        };
        self.image(GUESTS).args(&[path.as_str()])
    }

    /// A container that runs a command of busybox.
    pub(crate) fn linux(&mut self, command: &[&str]) -> Container {
        self.image(LINUX).args(&["/bin/busybox"]).args(command)
    }

    /// A container that says `ready` and waits: of WebAssembly if the runtime can run it.
    pub(crate) fn idle(&mut self) -> Container {
        if self.runs_wasm {
            self.guest("idle")
        } else {
            self.linux(&["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"])
        }
    }

    /// A container that ends at once with this exit code.
    pub(crate) fn exits_with(&mut self, code: &str) -> Container {
        if self.runs_wasm {
            self.guest("exit-code").args(&[code])
        } else {
            self.linux(&["sh", "-c", &format!("exit {code}")])
        }
    }

    /// A container that runs what the image says.
    pub(crate) fn image(&mut self, image: &'static str) -> Container {
        Container {
            image,
            id: self.new_id(),
            runtime: self.runtime.clone(),
            options: Vec::new(),
            args: Vec::new(),
        }
    }

    /// Process id and state of a task.
    pub(crate) fn task(&self, id: &str) -> Result<Option<(i32, String)>> {
        let list = self.containerd.ask(&["task", "ls"])?.success()?;
        let row = list
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|columns| columns.first() == Some(&id));
        let Some([_, pid, state]) = row.as_deref() else {
            return Ok(None);
        };
        Ok(Some((
            pid.parse().context("read a process id")?,
            (*state).to_owned(),
        )))
    }

    /// The process id of a task that runs.
    pub(crate) fn running(&self, id: &str) -> Result<i32> {
        match self.task(id)? {
            Some((pid, state)) if state == "RUNNING" => Ok(pid),
            other => Err(error!("the task {id} does not run: {other:?}")),
        }
    }

    /// Waits until a task has stopped, of which `ctr` has no command to learn.
    pub(crate) fn await_stopped(&self, id: &str) -> Result<()> {
        let mut last = None;
        let stopped = process::poll_until(&format!("the end of {id}"), SHORT, || {
            last = self.task(id)?;
            Ok(last.as_ref().is_some_and(|(_, state)| state == "STOPPED"))
        });
        stopped.map_err(|err| error!("{err}; at last the task was {last:?}"))
    }

    /// Sends a signal to a task.
    pub(crate) fn kill(&self, id: &str, signal: &str) -> Result<()> {
        self.containerd
            .ask(&["task", "kill", "--signal", signal, id])?
            .success()?;
        Ok(())
    }

    /// Deletes a stopped task and its container, and returns the task's exit status.
    pub(crate) fn delete(&self, id: &str) -> Result<i32> {
        let deleted = self.containerd.ask(&["task", "delete", id])?;
        let warning = deleted.stderr.clone();
        deleted.success()?;
        // It tells a status other than zero only so.
        let status = match warning.split_once("exit with non-zero exit code ") {
            Some((_, rest)) => rest
                .trim_end_matches(['"', '\n'])
                .parse()
                .context("read the status")?,
            None => 0,
        };
        ensure!(
            status != 0 || warning.is_empty(),
            "cannot delete {id}: {}",
            warning.trim()
        );
        self.remove(id)?;
        Ok(status)
    }

    /// Kills a task that runs and deletes it, which must tell of that end.
    pub(crate) fn end(&self, id: &str) -> Result<()> {
        self.kill(id, "SIGKILL")?;
        self.delete_killed(id)
    }

    /// Deletes a task that is being killed, with its container.
    pub(crate) fn delete_killed(&self, id: &str) -> Result<()> {
        self.await_stopped(id)?;
        let status = self.delete(id)?;
        ensure!(status == 137, "the status of {id} is {status}, not 137");
        Ok(())
    }

    /// Removes a container that has no task.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.containerd.ask(&["container", "rm", id])?.success()?;
        Ok(())
    }
}

/// An id from a sentence; containerd allows 76 letters, digits and single separators.
fn id(case: &str, number: usize) -> String {
    let words = case
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let mut id = words.collect::<Vec<_>>().join("-");
    id.truncate(64);
    format!("{}-{number}", id.trim_end_matches('-'))
}

/// A container to be run.
#[derive(Clone)]
pub(crate) struct Container {
    image: &'static str,
    id: String,
    runtime: String,
    options: Vec<String>,
    args: Vec<String>,
}

impl Container {
    /// The program and its arguments, instead of the image's.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// An option of `ctr run`.
    pub(crate) fn option(mut self, words: &[&str]) -> Self {
        self.options
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Another program instead of the first argument.
    pub(crate) fn program(mut self, program: &str) -> Self {
        self.args = vec![program.to_owned()];
        self
    }

    /// Another image with the same programs.
    pub(crate) fn of_image(mut self, image: &'static str) -> Self {
        self.image = image;
        self
    }

    /// Another shim.
    pub(crate) fn on(mut self, runtime: &str) -> Self {
        runtime.clone_into(&mut self.runtime);
        self
    }

    /// How containerd calls it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Runs it to its end and removes it.
    pub(crate) fn run(&self, stage: &Stage) -> Result<Finished> {
        process::run(self.attached(stage), LONG)
    }

    /// Starts it, with `ctr` attached to it.
    pub(crate) fn spawn(&self, stage: &Stage) -> Result<Process> {
        Process::spawn(self.attached(stage))
    }

    /// The command that runs it to its end and removes it.
    pub(crate) fn attached(&self, stage: &Stage) -> Command {
        self.command(stage, &["--rm"])
    }

    /// Starts it and leaves it alone.
    pub(crate) fn detach(&self, stage: &Stage) -> Result<()> {
        process::run(self.command(stage, &["--detach", "--null-io"]), LONG)?.success()?;
        Ok(())
    }

    fn command(&self, stage: &Stage, options: &[&str]) -> Command {
        let mut ctr = stage.containerd.ctr_run(&self.runtime);
        ctr.args(options).args(&self.options);
        ctr.args([self.image, &self.id]).args(&self.args);
        ctr
    }
}

/// Fails unless a command ended with this code and wrote exactly this to stdout.
pub(crate) fn check(finished: &Finished, code: i32, stdout: &str) -> Result<()> {
    ensure!(
        finished.code == code && finished.stdout == stdout,
        "expected exit code {code} and stdout {stdout:?}, but got {} and {:?}; stderr {:?}",
        finished.code,
        finished.stdout,
        finished.stderr
    );
    Ok(())
}

/// Fails unless a command ended with this code and wrote all of these to stderr.
pub(crate) fn check_failure(finished: &Finished, code: i32, reasons: &[&str]) -> Result<()> {
    ensure!(
        finished.code == code
            && reasons
                .iter()
                .all(|reason| finished.stderr.contains(reason)),
        "expected exit code {code} and {reasons:?} on stderr, but got {} and {:?}; stdout {:?}",
        finished.code,
        finished.stderr,
        finished.stdout
    );
    Ok(())
}

/// How soon a guest must end after a signal.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

fn import_guests(containerd: &Containerd) -> Result<()> {
    let mut files = vec![
        Entry::directory("data"),
        Entry::file("data/in.txt", "once\n"),
        Entry::file("text.txt", "This is no program.\n"),
        Entry::file("nested/hello.wasm", HELLO.wasm()),
    ];
    let guests = shimwright_guests::ALL.iter();
    files.extend(guests.map(|guest| Entry::file(file(*guest), guest.wasm())));
    let plain = Image::of_files(GUESTS, &["/hello.wasm"], files.clone());
    containerd.import(&plain)?;
    containerd.import_for_pods(&plain)?;
    let mut wasi = Image::of_files(GUESTS_WASI, &["/hello.wasm"], files.clone());
    wasi.platform = Platform::Wasm;
    containerd.import(&wasi)?;
    let mut user = Image::of_files(GUESTS_USER, &["/hello.wasm"], files);
    USER.clone_into(&mut user.user);
    containerd.import(&user)?;
    if containerd.release().has_wasm_layers() {
        for (name, guest) in [(LAYER_MODULE, HELLO), (LAYER_COMPONENT, HELLO_COMPONENT)] {
            let path = format!("/{}", file(guest));
            let image = Image::of_wasm_layer(name, &path, guest.wasm().to_vec());
            containerd.import(&image)?;
            containerd.import_for_pods(&image)?;
        }
    }
    Ok(())
}

/// Imports an application of two components, of which the second copies what the first prints.
fn import_pipelines(containerd: &Containerd) -> Result<()> {
    const WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
    let guests = [HELLO, CAT];
    let manifest = |kind: &str, source: fn(Guest) -> String| {
        let stages = guests.map(
            |guest| serde_json::json!({ "name": guest.name(), "source": { kind: source(guest) } }),
        );
        serde_json::json!({ "stages": stages })
            .to_string()
            .into_bytes()
    };
    let path = "/pipeline.json";
    let files = guests.map(|guest| Entry::file(file(guest), guest.wasm()));
    let by_path = Entry::file("pipeline.json", manifest("path", file));
    let files = [&files[..], &[by_path]].concat();
    containerd.import(&Image::of_files(PIPELINE, &[path], files))?;
    if containerd.release().has_wasm_layers() {
        let by_digest = manifest("digest", |guest| image::digest(guest.wasm()));
        let mut layers = vec![("application/vnd.shimwright.pipeline.v1+json", by_digest)];
        layers.extend(guests.map(|guest| (WASM, guest.wasm().to_vec())));
        containerd.import(&Image::of_layers(LAYER_PIPELINE, path, layers))?;
    }
    Ok(())
}

/// The name of a guest's file.
fn file(guest: Guest) -> String {
    format!("{}.wasm", guest.name())
}

/// The guest that greets, as a component.
pub(crate) const COMPONENT: &str = HELLO_COMPONENT.name();
