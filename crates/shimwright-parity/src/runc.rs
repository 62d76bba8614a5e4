//! Runs a case with runc.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shimwright_testkit::{Result, poll};

use crate::ours::ID;
use crate::session::{Container, Run, Streams, of_exec, talk, talk_to_exec};
use crate::terminal::Terminal;
use crate::{Case, Stage, World, observe};

/// What runc writes if the case fails.
const LOG: &str = "runc.log";

pub(crate) fn run(world: &World, case: &Case, stage: &Stage, bundle: &Path) -> Result<Run> {
    fs::create_dir_all(bundle)?;
    fs::write(bundle.join("config.json"), stage.spec.to_string())?;
    let runc = Runc { world, stage };
    let outcome = runc.run(case, bundle);
    // It is there still if something failed.
    let _ = runc.command(&["delete", "--force", ID]).output();
    let mut run = outcome?;
    run.observed["hooks"] = json!(stage.hooks());
    run.observed["root"] = observe::files(&stage.root(""));
    run.observed["bundle"] = json!(bundle);
    Ok(run)
}

struct Runc<'a> {
    world: &'a World,
    stage: &'a Stage,
}

impl Runc<'_> {
    fn run(&self, case: &Case, bundle: &Path) -> Result<Run> {
        let process = &self.stage.spec["process"];
        let mut command = self.command(&["run"]);
        command.arg("--bundle").arg(bundle);
        command.arg("--pid-file").arg(self.pid_file("container"));
        command.arg(ID);
        let mut streams = Streams::new(self.stage, "container", process["terminal"] == true)?;
        let running = Running::spawn(command, process, &streams)?;
        let seen = talk(case, self.stage, &mut streams, self);
        let exit = running.end(seen.is_err());
        let (seen, exit) = (seen?, exit?);
        let rest = streams.rest()?;
        let log = fs::read_to_string(self.stage.node(LOG)).unwrap_or_default();
        let said = format!("{rest} {log}");
        let Some(mut observed) = seen else {
            return Ok(Run {
                observed: json!({ "outcome": "refused" }),
                said,
            });
        };
        observed["outcome"] = json!("runs");
        observed["exit"] = json!(exit);
        observed["rest"] = rest;
        Ok(Run { observed, said })
    }

    fn command(&self, words: &[&str]) -> Command {
        // containerd's shim raises its score by 1, which what it starts inherits.
        let script = "echo $(($(cat /proc/self/oom_score_adj) + 1)) >/proc/self/oom_score_adj; \
                      unset SHLVL PWD OLDPWD; exec \"$@\"";
        let mut command = Command::new(self.stage.busybox());
        command.args(["sh", "-c", script, "sh"]);
        command
            .arg(&self.world.runc)
            .arg("--root")
            .arg(self.stage.node("state"))
            .arg("--log")
            .arg(self.stage.node(LOG))
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(self.stage.place());
        command
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.stage.node(&format!("{name}.pid"))
    }

    fn read_pid(&self, name: &str) -> Result<u32> {
        // runc writes it when the program runs already.
        let read = || {
            fs::read_to_string(self.pid_file(name))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Ok(poll(read).ok_or("runc has written no pid")?)
    }
}

impl Container for Runc<'_> {
    fn pid(&self) -> Result<u32> {
        self.read_pid("container")
    }

    fn exec(&self, process: &Value) -> Result<Value> {
        let file = self.stage.node("process.json");
        fs::write(&file, process.to_string())?;
        let mut command = self.command(&["exec"]);
        command.arg("--process").arg(file);
        command.arg("--pid-file").arg(self.pid_file("exec")).arg(ID);
        let mut streams = Streams::new(self.stage, "exec", process["terminal"] == true)?;
        let running = Running::spawn(command, process, &streams)?;
        let seen = self.read_exec(&mut streams);
        let exit = running.end(seen.is_err());
        let (seen, exit) = (seen?, exit?);
        let rest = streams.rest()?;
        Ok(of_exec(seen, exit, rest))
    }
}

impl Runc<'_> {
    fn read_exec(&self, streams: &mut Streams) -> Result<Option<Value>> {
        if streams.line(0)?.is_none() {
            return Ok(None);
        }
        talk_to_exec(streams, self.read_pid("exec")?, self.stage)
    }
}

/// A command of runc that stays as long as the process it has started.
struct Running {
    child: Child,
    terminal: Option<Terminal>,
}

impl Running {
    fn spawn(mut command: Command, process: &Value, streams: &Streams) -> Result<Self> {
        let [stdin, stdout, stderr] = streams.paths();
        let mut terminal = None;
        if process["terminal"] == true {
            let made = Terminal::make(&process["consoleSize"], &stdin, &stdout)?;
            made.attach(&mut command)?;
            terminal = Some(made);
        } else {
            let writer = |path: &str| File::options().write(true).open(path);
            command
                .stdin(File::open(stdin)?)
                .stdout(writer(&stdout)?)
                .stderr(writer(&stderr)?);
        }
        let child = command.spawn()?;
        // It holds the streams.
        drop(command);
        if let Some(terminal) = &terminal {
            terminal.copy()?;
        }
        Ok(Self { child, terminal })
    }

    /// Waits for its end and returns the exit status.
    fn end(mut self, kill: bool) -> Result<i32> {
        if kill {
            let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        }
        let status = poll(|| self.child.try_wait().transpose());
        drop(self.terminal.take());
        let Some(status) = status else {
            let _ = self.child.kill();
            let _ = self.child.wait();
            return Err("runc does not end".into());
        };
        Ok(status?.code().unwrap_or(-1))
    }
}
