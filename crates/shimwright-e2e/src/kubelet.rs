//! What a kubelet does: pods and their containers through containerd's CRI.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process::{self, Finished};

use crate::stage::{GUESTS, LINUX, Stage};

/// Values of the interface's enumerations.
pub(crate) const NAMESPACE_OF_POD: i32 = 0;
pub(crate) const NAMESPACE_OF_CONTAINER: i32 = 1;
const CONTAINER_RUNNING: i64 = 1;
const CONTAINER_EXITED: i64 = 2;
const PROFILE_RUNTIME_DEFAULT: i32 = 0;

/// What a kubelet hides of `/proc` and `/sys`: a part of its list.
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/sys/firmware"];
const READ_ONLY: [&str; 2] = ["/proc/sys", "/proc/sysrq-trigger"];

impl Stage {
    /// One call, which fails with the status and the message of containerd.
    pub(crate) fn call(&self, method: &str, request: &Value) -> Result<Value> {
        let mut cri = self.cri();
        cri.arg("call").arg(self.containerd().socket());
        cri.arg(method).arg(request.to_string());
        let reply = process::run(cri, LONG)?.success()?;
        serde_json::from_str(&reply).context(format_args!("read the reply to {method}"))
    }

    /// Runs an empty pod whose containers have process namespaces of their own.
    pub(crate) fn pod(&mut self) -> Result<Pod> {
        self.pod_with(NAMESPACE_OF_CONTAINER)
    }

    /// Runs an empty pod, with the given mode of process namespaces.
    pub(crate) fn pod_with(&mut self, pid_mode: i32) -> Result<Pod> {
        let (config, logs, namespaces) = self.pod_config(pid_mode)?;
        let request = json!({ "config": config, "runtime_handler": self.handler() });
        let reply = self.call("RunPodSandbox", &request)?;
        Ok(Pod {
            id: text(&reply["pod_sandbox_id"]),
            config,
            logs,
            namespaces,
        })
    }

    /// The request for an empty pod.
    pub(crate) fn pod_request(&mut self) -> Result<Value> {
        let (config, ..) = self.pod_config(NAMESPACE_OF_CONTAINER)?;
        Ok(json!({ "config": config, "runtime_handler": self.handler() }))
    }

    /// The configuration of a pod, its directory of logs and its namespaces.
    fn pod_config(&mut self, pid_mode: i32) -> Result<(Value, PathBuf, Value)> {
        self.await_ready()?;
        let name = self.new_id();
        let logs = self.containerd().directory().join("logs").join(&name);
        fs::create_dir_all(&logs)?;
        let namespaces = json!({ "pid": pid_mode });
        let config = json!({
            "metadata": { "name": name, "uid": name, "namespace": "default" },
            "hostname": "pod",
            "log_directory": logs,
            "linux": {
                "cgroup_parent": format!("/{}", self.containerd().namespace()),
                "security_context": {
                    "namespace_options": namespaces,
                    "seccomp": { "profile_type": PROFILE_RUNTIME_DEFAULT },
                },
            },
        });
        Ok((config, logs, namespaces))
    }

    /// Waits until containerd serves a kubelet, which it does a little after it is up, and has
    /// seen the images. It has no call that waits for either.
    pub(crate) fn await_ready(&self) -> Result<()> {
        process::poll_until("the start of containerd's CRI", SHORT, || {
            let Ok(status) = self.call("Status", &json!({})) else {
                return Ok(false);
            };
            // The two a kubelet asks for. containerd adds others, such as one about deprecated calls.
            let conditions = status["status"]["conditions"].as_array();
            Ok(["RuntimeReady", "NetworkReady"].iter().all(|name| {
                let mut all = conditions.into_iter().flatten();
                all.any(|one| one["type"] == json!(name) && one["status"] == json!(true))
            }))
        })?;
        let images = if self.runs_wasm() {
            &[LINUX, GUESTS][..]
        } else {
            &[LINUX][..]
        };
        for image in images {
            process::poll_until(&format!("an image {image}"), SHORT, || {
                let request = json!({ "image": { "image": image } });
                Ok(!self.call("ImageStatus", &request)?["image"].is_null())
            })?;
        }
        Ok(())
    }
}

/// A pod that has been run.
pub(crate) struct Pod {
    id: String,
    config: Value,
    logs: PathBuf,
    namespaces: Value,
}

impl Pod {
    /// A container that runs a guest of the image of guests.
    pub(crate) fn guest(&self, entrypoint: &str) -> Spec {
        self.image(GUESTS).args(&[&format!("/{entrypoint}.wasm")])
    }

    /// A container that runs a command of busybox.
    pub(crate) fn linux(&self, command: &[&str]) -> Spec {
        self.image(LINUX).args(&["/bin/busybox"]).args(command)
    }

    /// A container that says `ready` and waits: of WebAssembly if the runtime can run it.
    pub(crate) fn idle(&self, stage: &Stage) -> Spec {
        if stage.runs_wasm() {
            self.guest("idle")
        } else {
            self.linux(&["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"])
        }
    }

    /// A container that runs what an image says.
    pub(crate) fn image(&self, image: &str) -> Spec {
        Spec(json!({
            "image": { "image": image },
            "command": [],
            "mounts": [],
            "linux": {
                "resources": { "cpu_shares": 512 },
                "security_context": {
                    "namespace_options": self.namespaces,
                    "masked_paths": MASKED,
                    "readonly_paths": READ_ONLY,
                    "seccomp": { "profile_type": PROFILE_RUNTIME_DEFAULT },
                },
            },
        }))
    }

    /// Creates a container and starts it.
    pub(crate) fn start(&self, stage: &mut Stage, spec: Spec) -> Result<Running> {
        let container = self.create(stage, spec)?;
        stage.call("StartContainer", &json!({ "container_id": container.id }))?;
        Ok(container)
    }

    /// Creates a container, starts it and waits for its end.
    pub(crate) fn run(&self, stage: &mut Stage, spec: Spec) -> Result<Ended> {
        self.start(stage, spec)?.await_end(stage)
    }

    /// Creates a container.
    pub(crate) fn create(&self, stage: &mut Stage, Spec(mut spec): Spec) -> Result<Running> {
        let name = stage.new_id();
        let log = format!("{name}.log");
        spec["metadata"] = json!({ "name": name });
        spec["log_path"] = json!(log);
        let request = json!({
            "pod_sandbox_id": self.id,
            "config": spec,
            "sandbox_config": self.config,
        });
        let reply = stage.call("CreateContainer", &request)?;
        Ok(Running {
            id: text(&reply["container_id"]),
            log: self.logs.join(log),
        })
    }

    /// The status, and the process id of the first container.
    pub(crate) fn status(&self, stage: &Stage) -> Result<(Value, i32)> {
        let request = json!({ "pod_sandbox_id": self.id, "verbose": true });
        let reply = stage.call("PodSandboxStatus", &request)?;
        let pid = pid(&reply)?;
        Ok((reply["status"].clone(), pid))
    }

    /// Stops and removes the pod with everything in it.
    pub(crate) fn remove(self, stage: &Stage) -> Result<()> {
        let request = json!({ "pod_sandbox_id": self.id });
        stage.call("StopPodSandbox", &request)?;
        stage.call("RemovePodSandbox", &request)?;
        Ok(())
    }
}

/// A container to be created.
#[derive(Clone)]
pub(crate) struct Spec(Value);

impl Spec {
    /// The program and its arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        if let Some(command) = self.0["command"].as_array_mut() {
            command.extend(args.iter().map(|&arg| json!(arg)));
        }
        self
    }

    /// A directory of the host, seen at `path`.
    pub(crate) fn volume(
        mut self,
        directory: &std::path::Path,
        path: &str,
        readonly: bool,
    ) -> Self {
        if let Some(mounts) = self.0["mounts"].as_array_mut() {
            mounts.push(json!({
                "host_path": directory,
                "container_path": path,
                "readonly": readonly,
            }));
        }
        self
    }

    /// A limit of memory, swap included, in bytes.
    pub(crate) fn memory(mut self, limit: i64) -> Self {
        let resources = &mut self.0["linux"]["resources"];
        resources["memory_limit_in_bytes"] = json!(limit);
        resources["memory_swap_limit_in_bytes"] = json!(limit);
        self
    }
}

/// A container that has been created.
pub(crate) struct Running {
    id: String,
    log: PathBuf,
}

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i64,
    pub(crate) reason: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The status, and the process id, which is there as long as the container runs.
    fn status(&self, stage: &Stage) -> Result<Value> {
        let request = json!({ "container_id": self.id, "verbose": true });
        stage.call("ContainerStatus", &request)
    }

    /// The process id of a container that runs.
    pub(crate) fn pid(&self, stage: &Stage) -> Result<i32> {
        let reply = self.status(stage)?;
        let state = reply["status"]["state"].as_i64();
        ensure!(
            state == Some(CONTAINER_RUNNING),
            "the container does not run: {reply}; its log is {:?}",
            self.log()
        );
        pid(&reply)
    }

    /// Waits until the container has written a line to its standard output.
    pub(crate) fn await_line(&self, line: &str) -> Result<()> {
        // The log is a file, and containerd tells nobody when it writes there.
        process::poll_until(&format!("the line {line:?}"), SHORT, || {
            Ok(self.log()?.0.lines().any(|written| written == line))
        })
        .map_err(|err| error!("{err}; the log is {:?}", self.log()))
    }

    /// Waits for the end.
    pub(crate) fn await_end(&self, stage: &Stage) -> Result<Ended> {
        let mut reply = Value::Null;
        let ended = process::poll_until("the end of a container", LONG, || {
            reply = self.status(stage)?;
            Ok(reply["status"]["state"].as_i64() == Some(CONTAINER_EXITED))
        });
        ended.map_err(|err| error!("{err}; at last its status was {reply}"))?;
        let status = &reply["status"];
        let (stdout, stderr) = self.log()?;
        Ok(Ended {
            code: status["exit_code"].as_i64().unwrap_or(-1),
            reason: text(&status["reason"]),
            stdout,
            stderr,
        })
    }

    /// Asks the container to end, and kills it after `grace`.
    pub(crate) fn stop(&self, stage: &Stage, grace: Duration) -> Result<()> {
        let request = json!({ "container_id": self.id, "timeout": grace.as_secs() });
        stage.call("StopContainer", &request)?;
        Ok(())
    }

    pub(crate) fn remove(&self, stage: &Stage) -> Result<()> {
        stage.call("RemoveContainer", &json!({ "container_id": self.id }))?;
        Ok(())
    }

    /// Executes a command in the container, as a probe does: exit code and standard output.
    pub(crate) fn exec(&self, stage: &Stage, command: &[&str]) -> Result<(i64, String)> {
        let request = json!({ "container_id": self.id, "cmd": command, "timeout": 10 });
        let reply = stage.call("ExecSync", &request)?;
        let bytes = reply["stdout"].as_array().into_iter().flatten();
        let bytes = bytes.filter_map(|byte| u8::try_from(byte.as_u64()?).ok());
        let stdout = String::from_utf8(bytes.collect()).context("read the output")?;
        Ok((reply["exit_code"].as_i64().unwrap_or(-1), stdout))
    }

    /// Executes a command in the container, with its streams, as `kubectl exec` does.
    pub(crate) fn attach(
        &self,
        stage: &Stage,
        command: &[&str],
        tty: bool,
        input: &str,
    ) -> Result<Finished> {
        let request = json!({
            "container_id": self.id,
            "cmd": command,
            "tty": tty,
            "stdin": true,
            "stdout": true,
            // A terminal is one stream.
            "stderr": !tty,
        });
        let reply = stage.call("Exec", &request)?;
        let mut cri = stage.cri();
        cri.args(["attach", &text(&reply["url"]), input]);
        process::run(cri, SHORT)
    }

    /// What the container has written to its two streams, from a log in Kubernetes' format:
    /// time, stream, tag and text, where the tag says whether the line goes on.
    pub(crate) fn log(&self) -> Result<(String, String)> {
        let log = fs::read_to_string(&self.log).context("read the log")?;
        let mut streams = BTreeMap::from([("stdout", String::new()), ("stderr", String::new())]);
        for line in log.lines() {
            let mut fields = line.splitn(4, ' ');
            let (Some(time), Some(stream), Some(tag), Some(text)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(error!("{line:?} is no line of a log"));
            };
            ensure!(
                time.len() > 20 && time.contains('T') && ["F", "P"].contains(&tag),
                "{line:?} is no line of a log"
            );
            let stream = streams.get_mut(stream);
            let stream = stream.ok_or_else(|| error!("{line:?} is of no stream"))?;
            stream.push_str(text);
            if tag == "F" {
                stream.push('\n');
            }
        }
        let mut take = |stream| streams.remove(stream).unwrap_or_default();
        Ok((take("stdout"), take("stderr")))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The process id, which is in the part of a status that is for people.
fn pid(reply: &Value) -> Result<i32> {
    let info: Value = serde_json::from_str(reply["info"]["info"].as_str().unwrap_or_default())
        .context(format_args!("read the details of {reply}"))?;
    let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.ok_or_else(|| error!("there is no process id in {info}"))
}
