//! Containers of one pod.

use std::time::Duration;

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Result, ensure};
use shimwright_testenv::leak;

use super::{Case, Needs};
use crate::stage::{Container, Stage, check};

pub(crate) const CASES: &[Case] = &[
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
    Case::new(
        "containers of a node share a shim process if it says so",
        Needs::Ours,
        |stage| on_sharing_node(stage, containers),
    ),
    Case::new(
        "pods of a node share a shim process if it says so",
        Needs::Ours,
        |stage| on_sharing_node(stage, pods),
    ),
];

fn on_sharing_node(stage: &mut Stage, case: fn(&mut Stage) -> Result<()>) -> Result<()> {
    stage
        .containerd()
        .configure_shims("[shim]\nshare = 'node'\n")?;
    let outcome = case(stage);
    stage.containerd().configure_shims("")?;
    outcome
}

fn one_shim() -> Result<()> {
    let shims = shims();
    ensure!(
        shims.len() == 1,
        "there are {} shims: {shims:?}",
        shims.len()
    );
    Ok(())
}

fn containers(stage: &mut Stage) -> Result<()> {
    let (first, second) = (stage.idle(), stage.idle());
    first.detach(stage)?;
    second.detach(stage)?;
    check(&stage.exits_with("5").run(stage)?, 5, "")?;
    one_shim()?;
    stage.containerd_mut().kill()?;
    stage.containerd_mut().relaunch()?;
    end(&[&first], stage)?;
    stage.running(second.id())?;
    let third = stage.idle();
    third.detach(stage)?;
    one_shim()?;
    end(&[&second, &third], stage)?;
    // Nobody is left to need it.
    stage
        .containerd()
        .ground()
        .await_clean(Duration::from_secs(5))
}

fn pods(stage: &mut Stage) -> Result<()> {
    let (first, second) = (stage.pod()?, stage.pod()?);
    for pod in [&first, &second] {
        let app = pod.idle(stage);
        pod.start(stage, app)?;
    }
    one_shim()?;
    first.remove(stage)?;
    one_shim()?;
    second.remove(stage)
}

fn shims() -> Vec<String> {
    leak::shims()
        .iter()
        .map(|shim| format!("{}: {}", shim.pid, shim.command_line.join(" ")))
        .collect()
}

fn end(containers: &[&Container], stage: &Stage) -> Result<()> {
    containers
        .iter()
        .try_for_each(|container| stage.end(container.id()))
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
    one_shim()?;
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
