//! Runs a case with the shim under test, which a fake containerd drives.

use serde_json::{Value, json};
use shimwright_testkit::protos::ttrpc;
use shimwright_testkit::shim::Exec;
use shimwright_testkit::{Bundle, Containerd, Result, Shim};

use crate::session::{Container, Run, Streams, of_exec, talk, talk_to_exec};
use crate::{Case, Stage, observe};

/// The id of every container.
pub(crate) const ID: &str = "parity";

pub(crate) fn run(containerd: &Containerd, case: &Case, stage: &Stage) -> Result<Run> {
    let terminal = stage.spec["process"]["terminal"] == true;
    let streams = Streams::new(stage, "container", terminal)?;
    let bundle = containerd.bundle(ID)?;
    let bundle = bundle.spec(|spec| spec.clone_from(&stage.spec))?.log()?;
    let mut request = bundle.request();
    [request.stdin, request.stdout, request.stderr] = streams.paths();
    let shim = match containerd.start(&bundle) {
        Ok(shim) => shim,
        // A spec that cannot be parsed.
        Err(error) => return finish(&bundle, stage, refusal(&error.to_string())),
    };
    let created = shim.create_task(&request).map(|answer| answer.pid);
    let outcome = match created {
        Ok(pid) => {
            let outcome = started(
                case,
                stage,
                streams,
                Ours {
                    shim: &shim,
                    stage,
                    pid,
                },
            );
            // It may have failed at any moment.
            let _ = shim.kill(ID, 9);
            let _ = shim.delete(ID);
            outcome
        }
        Err(error) => Ok(refused(&error)),
    };
    shim.shutdown();
    containerd.wait_until_clean()?;
    finish(&bundle, stage, outcome?)
}

fn finish(bundle: &Bundle, stage: &Stage, mut run: Run) -> Result<Run> {
    run.observed["hooks"] = json!(stage.hooks());
    run.observed["root"] = observe::files(&stage.root(""));
    run.observed["bundle"] = json!(bundle.directory());
    Ok(run)
}

fn refusal(said: &str) -> Run {
    Run {
        observed: json!({ "outcome": "refused" }),
        said: said.to_owned(),
    }
}

fn started(case: &Case, stage: &Stage, mut streams: Streams, container: Ours<'_>) -> Result<Run> {
    let shim = container.shim;
    if let Err(error) = shim.start(ID) {
        return Ok(refused(&error));
    }
    let seen = talk(case, stage, &mut streams, &container)?;
    let exit = shim.wait(ID)?.exit_status;
    shim.delete(ID)
        .map_err(|error| format!("delete: {error}"))?;
    let rest = streams.rest()?;
    let said = rest["stderr"].to_string();
    let Some(mut observed) = seen else {
        let observed = json!({ "outcome": "refused" });
        let said = format!("status {exit}: {said}");
        return Ok(Run { observed, said });
    };
    observed["outcome"] = json!("runs");
    observed["exit"] = json!(exit);
    observed["rest"] = rest;
    Ok(Run { observed, said })
}

fn refused(error: &ttrpc::Error) -> Run {
    let said = match error {
        ttrpc::Error::RpcStatus(status) => status.message.clone(),
        other => other.to_string(),
    };
    refusal(&said)
}

struct Ours<'a> {
    shim: &'a Shim,
    stage: &'a Stage,
    pid: u32,
}

impl Container for Ours<'_> {
    fn pid(&self) -> Result<u32> {
        Ok(self.pid)
    }

    fn exec(&self, process: &Value) -> Result<Value> {
        let mut streams = Streams::new(self.stage, "exec", process["terminal"] == true)?;
        let added = self.shim.add_exec(ID, "exec", process, streams.paths());
        let started = added.and_then(|exec| exec.start().map(|pid| (exec, pid)));
        let (exec, pid): (Exec, u32) = match started {
            Ok(started) => started,
            Err(_) => return Ok(json!({ "outcome": "refused" })),
        };
        let seen = talk_to_exec(&mut streams, pid, self.stage)?;
        let exit = exec.wait()?.exit_status;
        exec.delete()?;
        let rest = streams.rest()?;
        Ok(of_exec(seen, exit, rest))
    }
}
