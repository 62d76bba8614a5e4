//! What containers use, their limits, and running out of memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use shimwright_testenv::error::{Context, Result, ensure};
use shimwright_testenv::process;

use super::check;
use crate::kubelet::{Pod, Running, Spec};
use crate::stage::Stage;

pub(super) fn stats(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let busy = if stage.runs_wasm() {
        pod.guest("spin")
    } else {
        pod.linux(&["sh", "-c", "echo spinning; while :; do :; done"])
    };
    let app = pod.start(stage, busy)?;
    app.await_line("spinning")?;
    let first = usage(stage, &app)?;
    let begin = Instant::now();
    // The measure is the time that passes, so there is no event.
    process::pause(Duration::from_millis(500))?;
    let second = usage(stage, &app)?;
    let passed = u64::try_from(begin.elapsed().as_nanos())?;
    let used = second.processor - first.processor;
    ensure!(
        used > passed / 100 && used < 2 * passed,
        "a busy container has used {used} of {passed} nanoseconds"
    );
    let own = resident(app.pid(stage)?)?;
    ensure!(
        second.memory > 100 << 10 && second.memory < own + (64 << 20),
        "a process of {own} bytes uses {} bytes",
        second.memory
    );
    pod.remove(stage)
}

pub(super) struct Usage {
    /// In nanoseconds.
    processor: u64,
    /// In bytes.
    memory: u64,
}

pub(super) fn usage(stage: &Stage, container: &Running) -> Result<Usage> {
    let request = json!({ "container_id": container.id() });
    let reply = stage.call("ContainerStats", &request)?;
    let stats = &reply["stats"];
    let value = |path: &str| stats.pointer(path).and_then(serde_json::Value::as_u64);
    match (
        value("/cpu/usage_core_nano_seconds/value"),
        value("/memory/working_set_bytes/value"),
    ) {
        (Some(processor), Some(memory)) => Ok(Usage { processor, memory }),
        _ => Err(shimwright_testenv::error::error!(
            "the statistics lack something: {reply}"
        )),
    }
}

/// What a process has in memory, in bytes.
pub(super) fn resident(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.unwrap_or_default() << 10)
}

/// The file of a controller of version 1 or 2 that belongs to a process.
pub(super) fn limit(pid: i32) -> Result<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let group = |controller: &str| {
        table.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            (controllers == controller).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let root = Path::new("/sys/fs/cgroup");
    let path = match group("memory") {
        Some(path) => root.join("memory").join(path).join("memory.limit_in_bytes"),
        None => root.join(group("").unwrap_or_default()).join("memory.max"),
    };
    let text = fs::read_to_string(&path).context(format_args!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

pub(super) fn update(stage: &mut Stage, pod: &Pod, spec: Spec) -> Result<()> {
    let app = pod.start(stage, spec.memory(256 << 20))?;
    app.await_line("ready")?;
    let pid = app.pid(stage)?;
    let before = limit(pid)?;
    ensure!(before == (256 << 20).to_string(), "the limit is {before}");
    let request = json!({
        "container_id": app.id(),
        "linux": {
            "memory_limit_in_bytes": 128 << 20,
            "memory_swap_limit_in_bytes": 128 << 20,
        },
    });
    stage.call("UpdateContainerResources", &request)?;
    let after = limit(pid)?;
    ensure!(after == (128 << 20).to_string(), "the limit is {after}");
    Ok(())
}

pub(super) fn oom(stage: &mut Stage) -> Result<()> {
    let pod = stage.pod()?;
    let greedy: Spec = if stage.runs_wasm() {
        pod.guest("memory").args(&["256"])
    } else {
        pod.linux(&["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"])
    };
    let ended = pod.run(stage, greedy.memory(64 << 20))?;
    check(&ended, 137, "OOMKilled", "")?;
    pod.remove(stage)
}
