//! Clients that give up at any time: whatever their call was doing is done or undone, and in the end
//! nothing is left.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Result, ensure, error};
use shimwright_testenv::process::{self, Process};

use super::{Case, Needs};
use crate::runner::CLEAN_UP;
use crate::stage::{Container, Stage};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a client killed at any time of a run leaves nothing",
        Needs::AnyRuntime,
        run,
    ),
    Case::new(
        "a client killed at any time of an exec leaves nothing",
        Needs::AnyRuntime,
        exec,
    ),
    Case::new(
        "a client killed at any time of a deletion leaves nothing",
        Needs::AnyRuntime,
        delete,
    ),
    Case::new(
        "a kubelet that gives up at any time leaves nothing",
        Needs::AnyRuntime,
        kubelet,
    ),
];

/// How much later a client is killed than the one before, and how often. Together they cover the
/// time that a call takes.
const STEP: Duration = Duration::from_millis(12);
const TIMES: u32 = 24;

/// Kills a client after this time.
fn kill_after(command: Command, time: Duration) -> Result<()> {
    let client = Process::spawn(command)?;
    process::pause(time)?;
    drop(client);
    Ok(())
}

/// Ends whatever there is of a container for containerd, as its administrator would.
fn end(stage: &Stage, id: &str) -> Result<()> {
    // Each fails if there is nothing of the kind, or not yet.
    process::poll_until(&format!("the end of {id}"), LONG, || {
        stage.containerd().ask(&["task", "delete", "--force", id])?;
        stage.containerd().ask(&["container", "rm", id])?;
        let left = stage.containerd().ask(&["container", "ls", "--quiet"])?;
        Ok(!left.success()?.lines().any(|line| line == id))
    })
}

/// A container's own clean-up, after each time, shows which time it was.
fn check_clean(stage: &Stage, time: Duration) -> Result<()> {
    let clean = stage.containerd().ground().await_clean(CLEAN_UP * 4);
    clean.map_err(|err| error!("killed after {time:?}: {err}"))
}

fn run(stage: &mut Stage) -> Result<()> {
    for number in 1..=TIMES {
        let container = stage.idle();
        let time = STEP * number;
        kill_after(container.attached(stage), time)?;
        end(stage, container.id())?;
        check_clean(stage, time)?;
    }
    Ok(())
}

fn exec(stage: &mut Stage) -> Result<()> {
    let container = stage.linux(&["sleep", "86400"]);
    container.detach(stage)?;
    for number in 1..=TIMES {
        let mut ctr = stage.containerd().ctr();
        let id = format!("e{number}");
        ctr.args(["task", "exec", "--exec-id", &id, "--fifo-dir"]);
        ctr.arg(stage.containerd().directory().join("fifo"));
        ctr.args([container.id(), "/bin/busybox", "echo", "done"]);
        kill_after(ctr, STEP * number)?;
    }
    // Nobody waits for the execs any more, and they have ended.
    let alone = || {
        let listed = stage.containerd().ask(&["task", "ps", container.id()])?;
        Ok(listed.success()?.lines().count() == 2)
    };
    process::poll_until("the end of all execs", SHORT, alone)?;
    end(stage, container.id())?;
    check_clean(stage, STEP * TIMES)
}

fn delete(stage: &mut Stage) -> Result<()> {
    for number in 1..=TIMES {
        let container = ended(stage)?;
        let mut ctr = stage.containerd().ctr();
        ctr.args(["task", "delete", container.id()]);
        let time = STEP * number / 2;
        kill_after(ctr, time)?;
        end(stage, container.id())?;
        check_clean(stage, time)?;
    }
    Ok(())
}

/// A container that has ended and is yet to be deleted.
fn ended(stage: &mut Stage) -> Result<Container> {
    let container = stage.exits_with("0");
    container.detach(stage)?;
    stage.await_stopped(container.id())?;
    Ok(container)
}

/// Cancels a call, as a kubelet does whose deadline has passed: the connection ends.
fn cancel(stage: &Stage, method: &str, request: &Value, time: Duration) -> Result<()> {
    let mut cri = stage.cri();
    cri.arg("call").arg(stage.containerd().socket());
    cri.arg(method).arg(request.to_string());
    kill_after(cri, time)
}

fn kubelet(stage: &mut Stage) -> Result<()> {
    let sandboxes = |stage: &Stage| -> Result<Vec<Value>> {
        let listed = stage.call("ListPodSandbox", &json!({}))?;
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    };
    for number in 1..=TIMES {
        let time = STEP * number;
        let request = stage.pod_request()?;
        cancel(stage, "RunPodSandbox", &request, time * 2)?;
        let pod = stage.pod()?;
        let spec = pod.idle(stage);
        let app = pod.create(stage, spec)?;
        let id = json!({ "container_id": app.id() });
        cancel(stage, "StartContainer", &id, time)?;
        let probe = json!({ "container_id": app.id(), "cmd": ["/missing"], "timeout": 10 });
        cancel(stage, "ExecSync", &probe, time)?;
        let stop = json!({ "container_id": app.id(), "timeout": 0 });
        cancel(stage, "StopContainer", &stop, time)?;
        for pod in sandboxes(stage)? {
            let id = json!({ "pod_sandbox_id": pod["id"] });
            cancel(stage, "StopPodSandbox", &id, time)?;
            // A kubelet asks again until it has succeeded.
            process::poll_until("the end of a pod", LONG, || {
                let stopped = stage.call("StopPodSandbox", &id).is_ok();
                Ok(stopped && stage.call("RemovePodSandbox", &id).is_ok())
            })?;
        }
        let left = sandboxes(stage)?;
        ensure!(left.is_empty(), "pods are left: {left:?}");
        check_clean(stage, time)?;
    }
    Ok(())
}
