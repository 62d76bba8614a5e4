//! The calls of the Task service that look at a task or hold it.

use std::fs;

use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process::Process;

use super::{Case, Needs};
use crate::stage::{Container, Stage, check};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "tools find the shim of a container by its id",
        Needs::Ours,
        by_id,
    ),
    Case::new(
        "the processes of a guest are listed",
        Needs::Ours,
        |stage| {
            let container = stage.guest("idle");
            processes(container, stage)
        },
    ),
    Case::new(
        "the processes of a Linux program are listed",
        Needs::AnyRuntime,
        |stage| {
            let container = stage.linux(&WAIT);
            processes(container, stage)
        },
    ),
    Case::new(
        "the metrics of a guest have its memory",
        Needs::Ours,
        |stage| {
            let container = stage.guest("idle");
            metrics(container, stage)
        },
    ),
    Case::new(
        "the metrics of a Linux program have its memory",
        Needs::AnyRuntime,
        |stage| {
            let container = stage.linux(&WAIT);
            metrics(container, stage)
        },
    ),
    Case::new("a guest is paused and resumed", Needs::Ours, |stage| {
        let container = stage.guest("spin");
        pause(container, stage)
    }),
    Case::new(
        "a Linux program is paused and resumed",
        Needs::AnyRuntime,
        |stage| {
            let container = stage.linux(&WAIT);
            pause(container, stage)
        },
    ),
    Case::new(
        "a guest reads to the end of its input",
        Needs::Ours,
        |stage| {
            let container = stage.guest("cat");
            input(&container, "typed\n<end of input>\n", stage)
        },
    ),
    Case::new(
        "a Linux program reads to the end of its input",
        Needs::AnyRuntime,
        |stage| {
            let container = stage.linux(&["cat"]);
            input(&container, "typed\n", stage)
        },
    ),
    Case::new("a checkpoint of a guest is refused", Needs::Ours, |stage| {
        let container = stage.guest("idle");
        checkpoint(container, stage)
    }),
    Case::new(
        "a checkpoint of a Linux program is refused",
        Needs::Ours,
        |stage| {
            let container = stage.linux(&WAIT);
            checkpoint(container, stage)
        },
    ),
];

/// A command that does nothing for as long as it is left alone.
const WAIT: [&str; 2] = ["sleep", "86400"];

/// Starts a container, does `body` with its first process and ends it.
fn with_task(
    container: Container,
    stage: &mut Stage,
    body: impl FnOnce(&Stage, &str, i32) -> Result<()>,
) -> Result<()> {
    container.detach(stage)?;
    let id = container.id();
    let pid = stage.running(id)?;
    body(stage, id, pid)?;
    stage.end(id)
}

fn ask(stage: &Stage, args: &[&str]) -> Result<String> {
    stage.containerd().ask(args)?.success()
}

fn processes(container: Container, stage: &mut Stage) -> Result<()> {
    with_task(container, stage, |stage, id, pid| {
        let table = ask(stage, &["task", "ps", id])?;
        let pids = table.lines().skip(1);
        let pids: Vec<_> = pids
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        ensure!(
            pids == [pid.to_string().as_str()],
            "process {pid} is listed as {table}"
        );
        Ok(())
    })
}

fn metrics(container: Container, stage: &mut Stage) -> Result<()> {
    with_task(container, stage, |stage, id, _| {
        let table = ask(stage, &["task", "metrics", id])?;
        // The name is that of the version 1 or of the version 2 hierarchy.
        let memory = table.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            ["memory.usage_in_bytes", "memory.usage"]
                .contains(&name)
                .then(|| words.next())?
        });
        let bytes: u64 = memory
            .ok_or_else(|| error!("there is no memory among {table}"))?
            .parse()
            .context("read the memory")?;
        ensure!(bytes > 0, "the task uses no memory: {table}");
        Ok(())
    })
}

fn pause(container: Container, stage: &mut Stage) -> Result<()> {
    with_task(container, stage, |stage, id, pid| {
        for (command, state, frozen) in [("pause", "PAUSED", true), ("resume", "RUNNING", false)] {
            ask(stage, &["task", command, id])?;
            let found = stage.task(id)?.map(|(_, state)| state);
            ensure!(
                found.as_deref() == Some(state) && is_frozen(pid)? == frozen,
                "after {command} the task is {found:?}"
            );
        }
        Ok(())
    })
}

/// Whether the kernel runs nothing of the control group of a process: by the `freezer` of version
/// 1, or by the version 2 hierarchy.
fn is_frozen(pid: i32) -> Result<bool> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = |controller: &str| {
        let of = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            Some(rest.strip_prefix(controller)?.strip_prefix(':')?.to_owned())
        };
        groups.lines().find_map(of)
    };
    if let Some(path) = path("freezer") {
        let state = fs::read_to_string(format!("/sys/fs/cgroup/freezer{path}/freezer.state"))?;
        return Ok(state.trim() == "FROZEN");
    }
    let path = path("").ok_or_else(|| error!("process {pid} has no control group"))?;
    let events = fs::read_to_string(format!("/sys/fs/cgroup{path}/cgroup.events"))?;
    Ok(events.lines().any(|line| line == "frozen 1"))
}

fn input(container: &Container, shown: &str, stage: &mut Stage) -> Result<()> {
    let ctr = container.attached(stage);
    let (mut ctr, keyboard) = Process::spawn_with_open_input(ctr, "typed\n")?;
    // `ctr` does not pass on an end that comes before the task is there.
    ctr.wait_for_output("typed\n", LONG)?;
    drop(keyboard);
    check(&ctr.finish(SHORT)?, 0, shown)
}

fn checkpoint(container: Container, stage: &mut Stage) -> Result<()> {
    with_task(container, stage, |stage, id, _| {
        let directory = stage.containerd().directory().join("checkpoint");
        let path = directory.display().to_string();
        let command = ["task", "checkpoint", "--image-path", &path, id];
        let finished = stage.containerd().ask(&command)?;
        ensure!(
            finished.code != 0 && finished.stderr.contains("checkpoint is not supported"),
            "ctr ended with {finished:?}"
        );
        // It goes on as if nothing had happened.
        stage.running(id).map(drop)
    })
}

/// `ctr shim` computes the address of the shim.
fn by_id(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("idle");
    container.detach(stage)?;
    let id = container.id();
    let state = stage.containerd().ask(&["shim", "--id", id, "state"])?;
    let state: serde_json::Value =
        serde_json::from_str(&state.success()?).context("read the state")?;
    let pid = stage.running(id)?;
    ensure!(
        state["pid"] == pid,
        "the shim of process {pid} says {state}"
    );
    stage.end(id)
}
