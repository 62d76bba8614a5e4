//! Limits, what is used, and running out of memory.

use std::fs;
use std::path::PathBuf;

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process;

use super::container::{guest, idle, linux};
use crate::stage::Stage;

/// How many bytes a MiB has.
pub(super) const MIB: u64 = 1 << 20;

/// Reads a setting of the control group a process is in, by its file in version 1 or 2.
pub(super) fn cgroup_setting(pid: i32, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let group_of = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            wanted(controllers).then(|| fields.next().unwrap_or_default().trim_start_matches('/'))
        })
    };
    let root = PathBuf::from("/sys/fs/cgroup");
    let version_1 = group_of(&|names| names.split(',').any(|name| name == controller));
    let path = match version_1 {
        Some(group) => root.join(controller).join(group).join(v1),
        None => {
            let group = group_of(&str::is_empty)
                .ok_or_else(|| error!("process {pid} is in no control group"))?;
            root.join(group).join(v2)
        }
    };
    let setting = fs::read_to_string(&path).context(format_args!("read {}", path.display()))?;
    Ok(setting.trim().to_owned())
}

pub(super) fn memory_limit(pid: i32) -> Result<String> {
    cgroup_setting(pid, "memory", "memory.limit_in_bytes", "memory.max")
}

pub(super) fn limits(stage: &mut Stage) -> Result<()> {
    let container = idle(stage).option(&["--memory", "64m", "--cpus", "0.5"]);
    container.detach_ready(stage)?;
    let pid = container.pid(stage)?;
    let memory = memory_limit(pid)?;
    ensure!(
        memory == (64 * MIB).to_string(),
        "the memory limit is {memory}"
    );
    let cpu = cgroup_setting(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(
        cpu.split(' ').next() == Some("50000"),
        "the processor quota is {cpu}"
    );
    let format = "{{.MemUsage}}, {{.PIDs}}";
    let stats = container.ask(stage, &["stats", "--no-stream", "--format", format])?;
    let stats = stats.trim();
    ensure!(
        stats.ends_with(" / 64MiB, 1") && !stats.starts_with("0B"),
        "the figures are {stats}"
    );
    container.ask(stage, &["rm", "-f"]).map(drop)
}

pub(super) fn update(stage: &mut Stage) -> Result<()> {
    let container = idle(stage).option(&["--memory", "64m"]);
    container.detach_ready(stage)?;
    container.ask(
        stage,
        &["update", "--memory", "96m", "--memory-swap", "96m"],
    )?;
    let memory = memory_limit(container.pid(stage)?)?;
    ensure!(
        memory == (96 * MIB).to_string(),
        "the memory limit is {memory}"
    );
    container.ask(stage, &["rm", "-f"]).map(drop)
}

pub(super) fn out_of_memory(stage: &mut Stage) -> Result<()> {
    let container = if stage.runs_wasm() {
        guest(stage, "memory").args(&["256"])
    } else {
        // What is written to a tmpfs is charged to whoever wrote it.
        let script = "exec /bin/busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=60";
        linux(stage, &["sh", "-c", script])
    };
    let container = container.option(&["--memory", "32m", "--memory-swap", "32m"]);
    container.detach(stage)?;
    let mut wait = stage.docker()?.docker();
    wait.args(["wait", &container.name]);
    process::run(wait, SHORT)?.success()?;
    let state = container.inspect(stage, "{{.State.ExitCode}} {{.State.OOMKilled}}")?;
    ensure!(state == "137 true", "exit code and OOMKilled are {state}");
    container.ask(stage, &["rm"]).map(drop)
}
