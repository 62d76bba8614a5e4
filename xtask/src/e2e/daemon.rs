//! containerd restarts and shims die; neither may lose or leak a task.

use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::stage::{Stage, check_failure};
use super::{Case, Needs};
use crate::containerd::{LONG, SHORT};
use crate::error::{Result, ensure, error};
use crate::leak;
use crate::process;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "a running task survives a restart of containerd",
        Needs::AnyRuntime,
        survives,
    ),
    Case::new(
        "a task that ended while containerd was down",
        Needs::Ours,
        ended_meanwhile,
    ),
    Case::new(
        "a killed shim leaves nothing behind",
        Needs::Ours,
        shim_killed,
    ),
    Case::new(
        "a shim killed while containerd is down",
        Needs::Ours,
        both_killed,
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
    stage.kill(container.id(), "SIGKILL")?;
    stage.await_stopped(container.id())?;
    let status = stage.delete(container.id())?;
    ensure!(status == 137, "the status is {status} instead of 137");
    Ok(())
}

fn ended_meanwhile(stage: &mut Stage) -> Result<()> {
    let container = stage.idle();
    container.detach(stage)?;
    let pid = stage.running(container.id())?;
    stage.containerd_mut().kill()?;
    kill(pid)?;
    process::wait_for_end_of(pid, SHORT)?;
    stage.containerd_mut().relaunch()?;
    stage.await_stopped(container.id())?;
    let status = stage.delete(container.id())?;
    ensure!(status == 137, "the status is {status} instead of 137");
    Ok(())
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

fn only_shim() -> Result<i32> {
    match leak::shims().as_slice() {
        [shim] => Ok(shim.pid),
        other => Err(error!("there are {} shims instead of one", other.len())),
    }
}

/// Kills a process that is not ours.
pub(super) fn kill(pid: i32) -> Result<()> {
    let process = Pid::from_raw(pid).ok_or_else(|| error!("{pid} is no process id"))?;
    Ok(rustix::process::kill_process(process, Signal::KILL)?)
}
