//! Pods, as a kubelet runs them. What does not need WebAssembly is tried with runc's shim too.

mod resources;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::containerd::pods::DRAIN;
use shimwright_testenv::error::{Context, Result, ensure};
use shimwright_testenv::network;
use shimwright_testenv::{leak, process};

use super::{Case, Needs};
use crate::kubelet::{Ended, NAMESPACE_OF_POD};
use crate::stage::{LAYER_MODULE, PROMPT, Stage};
use resources::{oom, stats, update};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "the example configuration is containerd's language",
        Needs::Ours,
        example,
    ),
    Case::new(
        "a pod's containers share an address and a shim",
        Needs::AnyRuntime,
        share,
    ),
    Case::new(
        "a pod's containers see each other's processes",
        Needs::AnyRuntime,
        share_processes,
    ),
    Case::new(
        "containerd learns what the runtime can do",
        Needs::RuntimeFeatures,
        features,
    ),
    Case::new(
        "a probe ends although its children hold its output",
        Needs::WasmLayers,
        held_output,
    ),
    Case::new("a pod's logs have both outputs", Needs::AnyRuntime, logs),
    Case::new(
        "a guest's logs in a pod have both outputs",
        Needs::Ours,
        guest_logs,
    ),
    Case::new(
        "an init container prepares a volume",
        Needs::AnyRuntime,
        init_container,
    ),
    Case::new(
        "a guest reads and writes a pod's volume",
        Needs::Ours,
        guest_volume,
    ),
    Case::new(
        "a Wasm layer is a pod's image",
        Needs::WasmLayers,
        wasm_layer,
    ),
    Case::new("a guest of a pod that traps says why", Needs::Ours, trap),
    Case::new(
        "a pod's missing entrypoint is named",
        Needs::AnyRuntime,
        missing_entrypoint,
    ),
    Case::new("a probe executes a program", Needs::AnyRuntime, probe),
    Case::new("a probe executes a guest", Needs::Ours, guest_probe),
    Case::new(
        "the streams of an exec in a pod are passed on",
        Needs::AnyRuntime,
        streamed_exec,
    ),
    Case::new(
        "what a pod's containers use is told",
        Needs::AnyRuntime,
        stats,
    ),
    Case::new("a pod's limits change", Needs::AnyRuntime, |stage| {
        let pod = stage.pod()?;
        let app = pod.idle(stage);
        update(stage, &pod, app)?;
        pod.remove(stage)
    }),
    Case::new("a sidecar's limits change", Needs::AnyRuntime, |stage| {
        let pod = stage.pod()?;
        let script = "echo ready; exec /bin/busybox sleep 86400";
        let sidecar = pod.linux(&["sh", "-c", script]);
        update(stage, &pod, sidecar)?;
        pod.remove(stage)
    }),
    Case::new("a pod's container is out of memory", Needs::AnyRuntime, oom),
    Case::new("a guest of a pod is stopped at once", Needs::Ours, stop),
    Case::new(
        "a pod's container is killed after its grace period",
        Needs::AnyRuntime,
        grace_period,
    ),
    Case::new(
        "a pod survives a restart of containerd",
        Needs::AnyRuntime,
        restart,
    ),
    Case::new(
        "a pod's guest that ended while containerd was down keeps its status",
        Needs::Ours,
        ended_meanwhile,
    ),
];

const FOREVER: &[&str] = &["sleep", "86400"];

fn check(ended: &Ended, code: i64, reason: &str, stdout: &str) -> Result<()> {
    ensure!(
        ended.code == code && ended.reason == reason && ended.stdout == stdout,
        "expected exit code {code}, reason {reason} and stdout {stdout:?}, but got {ended:?}"
    );
    Ok(())
}

fn namespace(pid: i32, kind: &str) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::read_link(&path).context(format_args!("read {path}"))
}

fn example(stage: &mut Stage) -> Result<()> {
    let release = stage.containerd().release();
    let (file, plugin) = (release.example(), release.runtime_plugin());
    let mut containerd = Command::new(stage.containerd().executable());
    containerd.arg("--config").arg(&file);
    containerd.args(["config", "dump"]);
    // It prints what it has understood: a table that it does not know is not there.
    let dump = process::run(containerd, SHORT)?.success()?;
    let dump = dump.replace('\'', "\"");
    let table = format!("[plugins.\"{plugin}\".containerd.runtimes.wasmtime]");
    let (_, after) = dump.split_once(&table).unwrap_or_default();
    let (_, options) = after
        .split_once(".runtimes.wasmtime.options]")
        .unwrap_or_default();
    ensure!(
        after.contains("runtime_type = \"io.containerd.wasmtime.v1\"")
            && options.trim_start().starts_with("SystemdCgroup = true"),
        "containerd has understood this of {}: {dump}",
        file.display()
    );
    Ok(())
}

fn share(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let spec = pod.idle(stage);
    let app = pod.start(stage, spec)?;
    let address = ["ip", "-4", "-o", "address", "show", "eth0"];
    let sidecar = pod.linux(&[
        "sh",
        "-c",
        &format!(
            "/bin/busybox {}; echo ready; exec /bin/busybox sleep 86400",
            address.join(" ")
        ),
    ]);
    let sidecar = pod.start(stage, sidecar)?;
    app.await_line("ready")?;
    sidecar.await_line("ready")?;
    let (status, pause) = pod.status(stage)?;
    let ip = status["network"]["ip"].as_str().unwrap_or_default();
    ensure!(
        ip.starts_with(network::SUBNET),
        "the pod's address is {ip:?}"
    );
    let (seen, _) = sidecar.log()?;
    ensure!(
        seen.contains(&format!("inet {ip}/")),
        "the pod's address is {ip}, but a container sees {seen:?}"
    );
    let pids = [pause, app.pid(stage)?, sidecar.pid(stage)?];
    for kind in ["net", "ipc", "uts"] {
        let own = namespace(rustix::process::getpid().as_raw_pid(), kind)?;
        let theirs = namespace(pause, kind)?;
        ensure!(theirs != own, "the {kind} namespace is the machine's");
        for pid in pids {
            let found = namespace(pid, kind)?;
            ensure!(
                found == theirs,
                "process {pid} is in {found:?} and not in the pod's {theirs:?}"
            );
        }
    }
    for kind in ["pid", "mnt"] {
        let mut all: Vec<_> = pids
            .iter()
            .map(|&pid| namespace(pid, kind))
            .collect::<Result<_>>()?;
        all.sort();
        all.dedup();
        ensure!(
            all.len() == 3,
            "containers share a {kind} namespace: {all:?}"
        );
    }
    let shims = leak::shims();
    ensure!(shims.len() == 1, "there are shims {shims:?} for one pod");
    pod.remove(stage)
}

fn share_processes(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod_with(NAMESPACE_OF_POD)?;
    let spec = pod.idle(stage);
    let app = pod.start(stage, spec)?;
    app.await_line("ready")?;
    // Among them are the pause, which is process 1, and the other container's.
    let list = pod.linux(&["sh", "-c", "echo /proc/[0-9]*"]);
    let ended = pod.run(stage, list)?;
    let pids = ended.stdout.split_whitespace().count();
    ensure!(
        ended.code == 0 && pids == 3 && ended.stdout.starts_with("/proc/1 "),
        "expected three processes, but got {ended:?}"
    );
    app.stop(stage, PROMPT)?;
    let (_, pause) = pod.status(stage)?;
    namespace(pause, "pid")?;
    pod.remove(stage)
}

fn logs(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let spec = pod.linux(&["sh", "-c", "echo one; echo two; echo three >&2; exit 3"]);
    let ended = pod.run(stage, spec)?;
    check(&ended, 3, "Error", "one\ntwo\n")?;
    ensure!(ended.stderr == "three\n", "stderr is {:?}", ended.stderr);
    pod.remove(stage)
}

fn guest_logs(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let ended = pod.run(stage, pod.guest("hello"))?;
    check(&ended, 0, "Completed", "Hello from Wasm\n")?;
    // Neither of its lines is ended.
    let ended = pod.run(stage, pod.guest("streams"))?;
    check(&ended, 0, "Completed", "to standard output")?;
    ensure!(
        ended.stderr == "to standard error",
        "stderr is {:?}",
        ended.stderr
    );
    pod.remove(stage)
}

/// An empty directory of the host.
fn volume(stage: &Stage) -> Result<PathBuf> {
    let directory = stage.containerd().directory().join("volume");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    Ok(directory)
}

fn init_container(stage: &mut Stage) -> Result<()> {
    let directory = volume(stage)?;
    let pod = stage.pod()?;
    let prepare = "echo prepared > /data/in.txt";
    let init = pod
        .linux(&["sh", "-c", prepare])
        .volume(&directory, "/data", false);
    check(&pod.run(stage, init)?, 0, "Completed", "")?;
    let app = pod
        .linux(&["cat", "/data/in.txt"])
        .volume(&directory, "/data", true);
    check(&pod.run(stage, app)?, 0, "Completed", "prepared\n")?;
    let write = pod
        .linux(&["touch", "/data/x"])
        .volume(&directory, "/data", true);
    let ended = pod.run(stage, write)?;
    check(&ended, 1, "Error", "")?;
    ensure!(
        ended.stderr.contains("Read-only file system"),
        "a read-only volume was written: {ended:?}"
    );
    pod.remove(stage)
}

fn guest_volume(stage: &mut Stage) -> Result<()> {
    let directory = volume(stage)?;
    let pod = stage.pod()?;
    let init = pod.linux(&["sh", "-c", "echo prepared > /data/in.txt"]);
    let init = init.volume(&directory, "/data", false);
    check(&pod.run(stage, init)?, 0, "Completed", "")?;
    let ended = pod.run(stage, pod.guest("files").volume(&directory, "/data", true))?;
    check(&ended, 1, "Error", "")?;
    ensure!(
        ended.stderr.contains("mkdir"),
        "a read-only volume was written: {ended:?}"
    );
    let app = pod.guest("files").volume(&directory, "/data", false);
    check(&pod.run(stage, app)?, 0, "Completed", "done\n")?;
    let written = fs::read_to_string(directory.join("out.txt")).context("read out.txt")?;
    ensure!(
        written == "prepared\nprepared\n",
        "the guest has written {written:?}"
    );
    pod.remove(stage)
}

fn wasm_layer(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let ended = pod.run(stage, pod.image(LAYER_MODULE))?;
    check(&ended, 0, "Completed", "Hello from Wasm\n")?;
    pod.remove(stage)
}

fn trap(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let ended = pod.run(stage, pod.guest("trap"))?;
    check(&ended, 134, "Error", "")?;
    ensure!(
        ended.stderr.contains("unreachable"),
        "the log does not tell of the trap: {ended:?}"
    );
    pod.remove(stage)
}

fn missing_entrypoint(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let spec = pod.image(crate::stage::LINUX).args(&["/missing.wasm"]);
    match pod.start(stage, spec) {
        Ok(_) => {
            return Err(shimwright_testenv::error::error!(
                "a missing program was started"
            ));
        }
        Err(err) => ensure!(
            err.to_string().contains("/missing.wasm"),
            "the program is not named: {err}"
        ),
    }
    pod.remove(stage)
}

fn probe(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let sidecar = pod.start(stage, pod.linux(FOREVER))?;
    let script = "cat /proc/1/comm; cat /proc/1/cmdline | tr '\\0' ' '; exit 4";
    let script = script
        .replace("cat ", "/bin/busybox cat ")
        .replace("tr ", "/bin/busybox tr ");
    let (code, stdout) = sidecar.exec(stage, &["/bin/busybox", "sh", "-c", &script])?;
    ensure!(
        code == 4 && stdout == "busybox\n/bin/busybox sleep 86400 ",
        "the probe ended with {code} and {stdout:?}"
    );
    let missing = sidecar.exec(stage, &["/missing"]);
    let reason = missing.err().map(|err| err.to_string()).unwrap_or_default();
    ensure!(
        reason.contains("/missing"),
        "a missing program of a probe is not named: {reason:?}"
    );
    pod.remove(stage)
}

fn guest_probe(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let app = pod.start(stage, pod.guest("idle"))?;
    app.await_line("ready")?;
    let (code, stdout) = app.exec(stage, &["/hello.wasm", "probe"])?;
    ensure!(
        code == 0 && stdout == "Hello from Wasm probe\n",
        "the probe ended with {code} and {stdout:?}"
    );
    let (code, _) = app.exec(stage, &["/exit-code.wasm", "6"])?;
    ensure!(code == 6, "the probe ended with {code} instead of 6");
    app.pid(stage)?;
    pod.remove(stage)
}

fn streamed_exec(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let sidecar = pod.start(stage, pod.linux(FOREVER))?;
    let sh = |script| ["/bin/busybox", "sh", "-c", script];
    let script = "read x; echo out $x; echo err $x >&2; exit 9";
    let finished = sidecar.attach(stage, &sh(script), false, "hi\n")?;
    crate::stage::check(&finished, 9, "out hi\n")?;
    crate::stage::check_failure(&finished, 9, &["err hi\n"])?;
    // The size comes a little after the start, as from every client.
    let script = "until [ \"$(/bin/busybox stty size 2>/dev/null)\" = '33 91' ]; do :; done; echo sized; exit 2";
    let finished = sidecar.attach(stage, &sh(script), true, "")?;
    crate::stage::check(&finished, 2, "sized\r\n")?;
    pod.remove(stage)
}

fn stop(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    for guest in ["idle", "spin"] {
        let app = pod.start(stage, pod.guest(guest))?;
        app.await_line(if guest == "idle" { "ready" } else { "spinning" })?;
        let begin = Instant::now();
        app.stop(stage, SHORT)?;
        let passed = begin.elapsed();
        ensure!(passed < PROMPT, "{guest} was stopped after {passed:?}");
        let ended = app.await_end(stage)?;
        ensure!(ended.code == 143, "{guest} has ended so: {ended:?}");
        app.remove(stage)?;
    }
    pod.remove(stage)
}

fn grace_period(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let deaf = pod.linux(&[
        "sh",
        "-c",
        "trap '' TERM; echo ready; while :; do /bin/busybox sleep 1; done",
    ]);
    let app = pod.start(stage, deaf)?;
    app.await_line("ready")?;
    let begin = Instant::now();
    app.stop(stage, Duration::from_secs(1))?;
    let passed = begin.elapsed();
    ensure!(
        passed >= Duration::from_secs(1) && passed < PROMPT,
        "a container that ignores SIGTERM was stopped after {passed:?}"
    );
    let ended = app.await_end(stage)?;
    check(&ended, 137, "Error", "ready\n")?;
    pod.remove(stage)
}

fn restart(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let spec = pod.idle(stage);
    let app = pod.start(stage, spec)?;
    app.await_line("ready")?;
    let before = app.pid(stage)?;
    stage.containerd_mut().kill()?;
    stage.containerd_mut().relaunch()?;
    stage.await_ready()?;
    let after = app.pid(stage)?;
    ensure!(before == after, "process {before} has become {after}");
    pod.remove(stage)
}

fn ended_meanwhile(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let app = pod.start(stage, pod.guest("idle"))?;
    app.await_line("ready")?;
    let pid = app.pid(stage)?;
    stage.containerd_mut().kill()?;
    super::daemon::kill(pid)?;
    process::wait_for_end_of(pid, SHORT)?;
    stage.containerd_mut().relaunch()?;
    stage.await_ready()?;
    check(&app.await_end(stage)?, 137, "Error", "ready\n")?;
    pod.remove(stage)
}

/// What a kubelet is told comes from there. containerd 2.1 tells it of runc only; later versions of
/// every runtime.
fn features(stage: &mut Stage) -> Result<()> {
    let runtime = stage.runtime().to_owned();
    let inspect = ["plugins", "inspect-runtime", "--runtime", &runtime];
    let info = stage.containerd().ask(&inspect)?.success()?;
    let info: serde_json::Value = serde_json::from_str(&info).context("read what it can do")?;
    let options = info["Features"]["mountOptions"].as_array();
    let mut options = options.into_iter().flatten();
    ensure!(options.any(|option| option == "rro"), "it can do {info}");
    Ok(())
}

/// containerd deletes the exec after a while, and then waits for the end of its output.
fn held_output(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let sidecar = pod.start(stage, pod.linux(FOREVER))?;
    let script = "/bin/busybox sleep 86400 & echo started";
    let begin = Instant::now();
    let probe = sidecar.exec(stage, &["/bin/busybox", "sh", "-c", script]);
    let passed = begin.elapsed();
    let reason = probe.err().map(|err| err.to_string()).unwrap_or_default();
    ensure!(
        reason.contains("io is still held by other processes"),
        "the probe says {reason:?}"
    );
    // What deleting an exec may take comes on top.
    ensure!(
        passed >= DRAIN && passed < DRAIN + Duration::from_secs(8),
        "the probe ended after {passed:?}"
    );
    sidecar.pid(stage)?;
    pod.remove(stage)
}
