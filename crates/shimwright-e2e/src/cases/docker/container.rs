//! A container to be run by Docker.

use std::process::Command;

use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Context, Result, ensure};
use shimwright_testenv::process::{self, Finished, Process};

use crate::stage::{GUESTS_WASI, LINUX, PROMPT, Stage};

/// A container to be run by Docker.
#[derive(Clone)]
pub(super) struct Container {
    pub(super) name: String,
    options: Vec<String>,
    image: &'static str,
    args: Vec<String>,
}

/// A container that runs a guest of the image [`GUESTS_WASI`].
pub(super) fn guest(stage: &mut Stage, name: &str) -> Container {
    let program = format!("/{name}.wasm");
    image(stage, GUESTS_WASI).option(&["--platform=wasi/wasm", "--entrypoint", &program])
}

/// A container that runs a command of busybox.
pub(super) fn linux(stage: &mut Stage, command: &[&str]) -> Container {
    image(stage, LINUX)
        .option(&["--entrypoint", "/bin/busybox"])
        .args(command)
}

/// A container that says `ready` and waits: of WebAssembly if the runtime can run it.
pub(super) fn idle(stage: &mut Stage) -> Container {
    if stage.runs_wasm() {
        guest(stage, "idle")
    } else {
        linux(
            stage,
            &["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"],
        )
    }
}

/// A container that ends at once with this exit code.
pub(super) fn exits_with(stage: &mut Stage, code: &str) -> Container {
    if stage.runs_wasm() {
        guest(stage, "exit-code").args(&[code])
    } else {
        linux(stage, &["sh", "-c", &format!("exit {code}")])
    }
}

/// A container that runs what the image says.
pub(super) fn image(stage: &mut Stage, image: &'static str) -> Container {
    Container {
        name: stage.new_id(),
        options: vec![format!("--runtime={}", stage.runtime())],
        image,
        args: Vec::new(),
    }
}

impl Container {
    /// Arguments after the program.
    pub(super) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// An option of `docker run`; a later one replaces an earlier one of the same name.
    pub(super) fn option(mut self, words: &[&str]) -> Self {
        self.options
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Runs it to its end and removes it.
    pub(super) fn run(&self, stage: &mut Stage) -> Result<Finished> {
        process::run(self.command(stage, &["--rm"])?, LONG)
    }

    /// The same with something on its standard input.
    pub(super) fn run_with_input(&self, stage: &mut Stage, input: &str) -> Result<Finished> {
        let command = self.command(stage, &["--rm", "--interactive"])?;
        Process::spawn_with_input(command, input)?.finish(LONG)
    }

    /// Starts it and leaves it alone.
    pub(super) fn detach(&self, stage: &mut Stage) -> Result<()> {
        process::run(self.command(stage, &["--detach"])?, LONG)?.success()?;
        Ok(())
    }

    /// Starts it and returns once it has written `ready`.
    pub(super) fn detach_ready(&self, stage: &mut Stage) -> Result<()> {
        self.detach(stage)?;
        let mut logs = stage.docker()?.docker();
        logs.args(["logs", "--follow", &self.name]);
        Process::spawn(logs)?.wait_for_output("ready", SHORT)
    }

    pub(super) fn command(&self, stage: &mut Stage, options: &[&str]) -> Result<Command> {
        let mut docker = stage.docker()?.docker();
        docker.args(["run", "--name", &self.name]).args(options);
        docker.args(&self.options).arg(self.image).args(&self.args);
        Ok(docker)
    }

    /// Runs `docker` with its name as the last argument.
    pub(super) fn ask(&self, stage: &mut Stage, args: &[&str]) -> Result<String> {
        let mut args = args.to_vec();
        args.push(&self.name);
        stage.docker()?.ask(&args)?.success()
    }

    /// What `docker inspect` says.
    pub(super) fn inspect(&self, stage: &mut Stage, format: &str) -> Result<String> {
        let found = self.ask(stage, &["inspect", "--format", format])?;
        Ok(found.trim().to_owned())
    }

    /// The process id of its first process.
    pub(super) fn pid(&self, stage: &mut Stage) -> Result<i32> {
        let pid = self.inspect(stage, "{{.State.Pid}}")?;
        pid.parse().context("read a process id")
    }

    /// Waits for its end, checks its exit code, and removes it.
    pub(super) fn ends_with(&self, stage: &mut Stage, code: i32) -> Result<()> {
        let mut wait = stage.docker()?.docker();
        wait.args(["wait", &self.name]);
        let waited = process::run(wait, PROMPT)?.success()?;
        ensure!(
            waited.trim() == code.to_string(),
            "the exit code is {} instead of {code}",
            waited.trim()
        );
        self.ask(stage, &["rm"]).map(drop)
    }
}
