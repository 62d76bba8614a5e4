//! containerd restarts and shims die; neither may lose or leak a task.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Result, ensure, error};
use shimwright_testenv::leak;
use shimwright_testenv::process::{self, Process};

use super::{Case, Needs};
use crate::stage::{PROMPT, Stage, check_failure};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a running task survives a restart of containerd",
        Needs::AnyRuntime,
        survives,
    ),
    Case::new(
        "a task that ended while containerd was down keeps its status",
        Needs::Ours,
        ended_meanwhile,
    ),
    Case::new(
        "a killed shim leaves nothing behind",
        Needs::Ours,
        shim_killed,
    ),
    Case::new(
        "a shim killed while containerd is down leaves nothing behind",
        Needs::Ours,
        both_killed,
    ),
    Case::new(
        "one of three shims outlives containerd",
        Needs::Ours,
        some_killed,
    ),
    Case::new(
        "a shim that is stopped while containerd asks it loses nothing",
        Needs::Ours,
        shim_stopped,
    ),
];

fn survives(stage: &mut Stage) -> Result<()> {
    let container = stage.idle();
    container.detach(stage)?;
    let before = stage.running(container.id())?;
    stage.containerd_mut().kill()?;
    stage.containerd_mut().relaunch()?;
    let after = stage.running(container.id())?;
    ensure!(before == after, "process {before} has become {after}");
    // SIGTERM would do for most programs, but PID 1 of a container may ignore it.
    stage.end(container.id())
}

fn ended_meanwhile(stage: &mut Stage) -> Result<()> {
    let container = stage.idle();
    container.detach(stage)?;
    let pid = stage.running(container.id())?;
    stage.containerd_mut().kill()?;
    kill(pid)?;
    process::wait_for_end_of(pid, SHORT)?;
    stage.containerd_mut().relaunch()?;
    stage.delete_killed(container.id())
}

fn shim_killed(stage: &mut Stage) -> Result<()> {
    let container = stage.idle();
    let mut ctr = container.spawn(stage)?;
    ctr.wait_for_output("ready", SHORT)?;
    kill(only_shim()?)?;
    stage
        .containerd()
        .ground()
        .await_clean(Duration::from_secs(5))?;
    // Which status `ctr` is told depends on containerd's version.
    ctr.finish(SHORT)?;
    let mut again = container.spawn(stage)?;
    again.wait_for_output("ready", LONG)?;
    stage.kill(container.id(), "SIGKILL")?;
    check_failure(&again.finish(SHORT)?, 137, &[])
}

fn both_killed(stage: &mut Stage) -> Result<()> {
    let container = stage.idle();
    container.detach(stage)?;
    stage.containerd_mut().kill()?;
    kill(only_shim()?)?;
    stage.containerd_mut().relaunch()?;
    stage
        .containerd()
        .ground()
        .await_clean(Duration::from_secs(5))?;
    stage.remove(container.id())
}

/// What containerd then says of each is true, and the ids of those that are gone can be used again.
fn some_killed(stage: &mut Stage) -> Result<()> {
    let lost = [stage.idle(), stage.linux(&["sleep", "86400"])];
    for container in &lost {
        container.detach(stage)?;
    }
    let shims = leak::shims();
    ensure!(shims.len() == 2, "there are {} shims", shims.len());
    let kept = stage.idle();
    kept.detach(stage)?;
    let pid = stage.running(kept.id())?;
    let pids = [stage.running(lost[0].id())?, stage.running(lost[1].id())?];
    stage.containerd_mut().kill()?;
    for shim in shims {
        kill(shim.pid)?;
    }
    stage.containerd_mut().relaunch()?;
    for (container, pid) in lost.iter().zip(pids) {
        // Nothing tells when containerd has cleaned up after a shim that it did not find.
        let what = format!("the end of {}", container.id());
        process::poll_until(&what, PROMPT, || Ok(stage.task(container.id())?.is_none()))?;
        process::wait_for_end_of(pid, PROMPT)?;
    }
    let after = stage.running(kept.id())?;
    ensure!(pid == after, "process {pid} has become {after}");
    for container in &lost {
        stage.remove(container.id())?;
        container.detach(stage)?;
        stage.running(container.id())?;
    }
    for container in lost.iter().chain([&kept]) {
        stage.end(container.id())?;
    }
    stage.containerd().ground().await_clean(PROMPT)
}

/// containerd gives up asking after a while, and must neither take the task for an ended one nor lose
/// what it is asked to do meanwhile.
fn shim_stopped(stage: &mut Stage) -> Result<()> {
    let container = stage.idle();
    container.detach(stage)?;
    let pid = stage.running(container.id())?;
    let shim = only_shim()?;
    signal(shim, Signal::STOP)?;
    let asked = stage.task(container.id());
    let mut kill = stage.containerd().ctr();
    kill.args(["task", "kill", "--signal", "SIGKILL", container.id()]);
    let kill = Process::spawn(kill);
    signal(shim, Signal::CONT)?;
    match asked? {
        Some((asked, state)) if state == "UNKNOWN" || asked == pid && state == "RUNNING" => {}
        other => return Err(error!("the task of a stopped shim is {other:?}")),
    }
    kill?.finish(SHORT)?.success()?;
    stage.delete_killed(container.id())
}

fn only_shim() -> Result<i32> {
    match leak::shims().as_slice() {
        [shim] => Ok(shim.pid),
        other => Err(error!("there are {} shims instead of one", other.len())),
    }
}

/// Kills a process that is not ours.
pub(crate) fn kill(pid: i32) -> Result<()> {
    signal(pid, Signal::KILL)
}

fn signal(pid: i32, signal: Signal) -> Result<()> {
    let process = Pid::from_raw(pid).ok_or_else(|| error!("{pid} is no process id"))?;
    Ok(rustix::process::kill_process(process, signal)?)
}
