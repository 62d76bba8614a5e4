//! Containers of one pod.

use super::stage::{Container, Stage, check};
use super::{Case, Needs};
use crate::containerd::SHORT;
use crate::error::{Result, ensure};
use crate::leak;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "containers of a pod share a shim process",
        Needs::AnyRuntime,
        share,
    ),
    Case::new(
        "containers outside of a pod do not share",
        Needs::AnyRuntime,
        apart,
    ),
];

fn shims() -> Vec<String> {
    leak::shims()
        .iter()
        .map(|shim| format!("{}: {}", shim.pid, shim.command_line.join(" ")))
        .collect()
}

fn end(containers: &[&Container], stage: &Stage) -> Result<()> {
    for container in containers {
        stage.kill(container.id(), "SIGKILL")?;
        stage.await_stopped(container.id())?;
        let status = stage.delete(container.id())?;
        ensure!(
            status == 137,
            "the status of {} is {status}, not 137",
            container.id()
        );
    }
    Ok(())
}

fn share(stage: &mut Stage) -> Result<()> {
    // What CRI writes into the spec of a pod's containers.
    let pod = "io.kubernetes.cri.sandbox-id=pod-of-two";
    let first = stage.idle().option(&["--annotation", pod]);
    let second = stage.idle().option(&["--annotation", pod]);
    let third = stage.exits_with("5").option(&["--annotation", pod]);
    first.detach(stage)?;
    second.detach(stage)?;
    check(&third.run(stage)?, 5, "")?;
    let shims = shims();
    ensure!(
        shims.len() == 1,
        "there are {} shims: {shims:?}",
        shims.len()
    );
    stage.running(first.id())?;
    stage.running(second.id())?;
    // In this order the task that the shim was started for ends first.
    end(&[&first], stage)?;
    stage.running(second.id())?;
    end(&[&second], stage)
}

fn apart(stage: &mut Stage) -> Result<()> {
    let (first, second) = (stage.idle(), stage.idle());
    first.detach(stage)?;
    second.detach(stage)?;
    let shims = shims();
    ensure!(
        shims.len() == 2,
        "there are {} shims after {SHORT:?}: {shims:?}",
        shims.len()
    );
    end(&[&first, &second], stage)
}
