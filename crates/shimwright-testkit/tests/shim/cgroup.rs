//! The control groups of a container: pausing it, its limits, what it uses, and lack of memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shimwright_guests::{HELLO, IDLE, MEMORY, SPIN};
use shimwright_testkit::protos::api::UpdateTaskRequest;
use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::protos::protobuf::{Message, MessageField};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::protos::types::task::Status;
use shimwright_testkit::protos::{cgroups, cgroups_v2};
use shimwright_testkit::{Bundle, Containerd, Output, Shim, poll};

use crate::{end, finish, for_each_engine, lives, refused, run, running, started};

for_each_engine! {
    a_paused_guest_stands_still_until_it_is_resumed
    a_paused_program_stands_still_until_it_is_resumed
    a_paused_container_can_be_killed
    a_paused_container_can_be_killed_with_all_its_processes
    a_paused_container_ends_with_its_shim
    pause_and_resume_are_refused_in_other_states
    limits_change_while_a_container_exists
    a_bad_limit_is_named_and_changes_nothing
    limits_of_an_ended_container_cannot_change
    a_guest_without_memory_is_reported_before_its_end
    each_killed_process_is_reported_once
    no_other_end_is_reported_as_lack_of_memory
    memory_is_what_the_control_group_says
    processor_time_is_what_proc_says
    the_figures_of_an_engine_are_openmetrics
    groups_that_cannot_be_made_leave_none
}

/// Does what its arguments say. Static, so that it needs no root file system.
const PROGRAM: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void touch(long mebibytes) {
  for (long i = 0; i < mebibytes; i++) memset(malloc(1 << 20), 1, 1 << 20);
}
int main(int argc, char **argv) {
  if (!strcmp(argv[1], "spin")) {
    write(1, "spinning\n", 9);
    for (;;) __asm__ volatile("");
  }
  /* Each line asks for a child that touches too much. */
  if (!strcmp(argv[1], "children")) {
    char line;
    while (read(0, &line, 1) == 1) {
      int status;
      pid_t child = fork();
      if (!child) { touch(1024); _exit(0); }
      waitpid(child, &status, 0);
      write(1, WIFSIGNALED(status) ? "killed\n" : "ended\n", WIFSIGNALED(status) ? 7 : 6);
    }
  }
  return 0;
}
"#;

/// A bundle with the program, compiled by the C compiler that Rust links with.
fn program(containerd: &Containerd, what: &str) -> Bundle {
    let source = containerd.directory().join("program.c");
    let binary = containerd.directory().join("program");
    fs::write(&source, PROGRAM).unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-O1", "-static", "-o"])
        .arg(&binary)
        .arg(&source);
    assert!(compile.status().unwrap().success());
    let bundle = containerd.bundle("a").unwrap();
    let bundle = bundle.file("/program", &fs::read(binary).unwrap(), 0o755);
    bundle.unwrap().args(&["/program", what]).unwrap()
}

/// The same as a container that runs and has written this.
fn running_program(engine: &str, what: &str, written: &str) -> (Containerd, Shim, Output) {
    let containerd = crate::containerd(engine);
    let mut bundle = program(&containerd, what);
    let shim = containerd.start(&bundle).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for(written).unwrap();
    (containerd, shim, output)
}

/// Whether control groups are of version 2 only, where all controllers share a hierarchy.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// One of two, for version 1 and version 2.
fn either<T>(version_1: T, version_2: T) -> T {
    if unified() { version_2 } else { version_1 }
}

/// A file of the container's group.
fn file(containerd: &Containerd, controller: &str, name: &str) -> PathBuf {
    let group = Path::new("/sys/fs/cgroup").join(either(controller, ""));
    group.join(containerd.namespace()).join("a").join(name)
}

fn content(containerd: &Containerd, controller: &str, name: &str) -> String {
    let path = file(containerd, controller, name);
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

/// `USER_HZ`, which is part of the kernel's interface (`include/uapi/asm-generic/param.h`).
const TICKS_PER_SECOND: u64 = 100;

/// The clock ticks a process has used (`proc_pid_stat(5)`).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn status(shim: &Shim) -> Status {
    shim.state("a").unwrap().status.unwrap()
}

/// What the tests look at, of either version of the metrics.
#[derive(Debug)]
struct Used {
    oom_kills: u64,
    /// In bytes.
    memory: u64,
    /// Of that, what no file holds.
    anonymous: u64,
    /// In nanoseconds.
    processor: u64,
}

fn metrics(shim: &Shim) -> Used {
    let any = shim.stats("a").unwrap().stats.unwrap();
    let expected = either(
        "io.containerd.cgroups.v1.Metrics",
        "io.containerd.cgroups.v2.Metrics",
    );
    assert_eq!(any.type_url, expected);
    if unified() {
        let metrics = cgroups_v2::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
        return Used {
            oom_kills: metrics.memory_events.oom_kill,
            memory: metrics.memory.usage,
            anonymous: metrics.memory.anon,
            processor: metrics.cpu.usage_usec * 1000,
        };
    }
    let metrics = cgroups::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
    Used {
        oom_kills: metrics.memory_oom_control.oom_kill,
        memory: metrics.memory.usage.usage,
        anonymous: metrics.memory.rss,
        processor: metrics.cpu.usage.total,
    }
}

pub(crate) fn update(
    shim: &Shim,
    resources: &Value,
) -> shimwright_testkit::protos::ttrpc::Result<()> {
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    let request = UpdateTaskRequest {
        id: "a".into(),
        resources: MessageField::some(Any {
            type_url: kind.into(),
            value: resources.to_string().into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    shim.update(&request).map(drop)
}

fn check_pause(containerd: &Containerd, shim: &Shim) {
    let pid = shim.state("a").unwrap().pid;
    shim.pause("a").unwrap();
    assert_eq!(status(shim), Status::PAUSED);
    let (file, frozen) = either(("freezer.state", "FROZEN"), ("cgroup.freeze", "1"));
    assert_eq!(content(containerd, "freezer", file), frozen);
    let used = ticks(pid);
    // What was done meanwhile takes longer than a clock tick.
    for _ in 0..200 {
        shim.stats("a").unwrap();
    }
    assert_eq!(ticks(pid), used);
    refused(shim.delete("a"), Code::FAILED_PRECONDITION);
    refused(shim.pause("a"), Code::FAILED_PRECONDITION);
    assert_eq!(shim.pids("a").unwrap(), [pid]);

    shim.resume("a").unwrap();
    assert_eq!(status(shim), Status::RUNNING);
    poll(|| (ticks(pid) > used).then_some(())).expect("it runs again");
    refused(shim.resume("a"), Code::FAILED_PRECONDITION);
    end(shim, "a");
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "paused", "resumed", "exit", "delete"]
    );
}

fn a_paused_guest_stands_still_until_it_is_resumed(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, SPIN, "spinning");
    check_pause(&containerd, &shim);
    finish(&containerd, &shim);
}

fn a_paused_program_stands_still_until_it_is_resumed(engine: &str) {
    let (containerd, shim, _output) = running_program(engine, "spin", "spinning");
    check_pause(&containerd, &shim);
    finish(&containerd, &shim);
}

fn check_kill(engine: &str, all: bool) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.pause("a").unwrap();
    // A signal that can be handled waits until it can be.
    shim.kill("a", libc::SIGTERM).unwrap();
    assert_eq!(status(&shim), Status::PAUSED);
    let request = shimwright_testkit::protos::api::KillRequest {
        id: "a".into(),
        signal: 9,
        all,
        ..Default::default()
    };
    shim.call::<shimwright_testkit::protos::api::Empty>("Kill", &request)
        .unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    assert_eq!(status(&shim), Status::STOPPED);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_paused_container_can_be_killed(engine: &str) {
    check_kill(engine, false);
}

fn a_paused_container_can_be_killed_with_all_its_processes(engine: &str) {
    check_kill(engine, true);
}

fn a_paused_container_ends_with_its_shim(engine: &str) {
    let (containerd, bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.pause("a").unwrap();
    let answer = shim.connect_task("a").unwrap();
    crate::signal(answer.shim_pid, rustix::process::Signal::KILL);
    poll(|| (!lives(answer.shim_pid)).then_some(())).expect("the shim ends");
    containerd.delete(bundle.directory(), "a").unwrap();
    assert!(!lives(answer.task_pid));
    containerd.wait_until_clean().unwrap();
}

fn pause_and_resume_are_refused_in_other_states(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    refused(shim.pause("a"), Code::NOT_FOUND);
    refused(shim.resume("a"), Code::NOT_FOUND);
    shim.create(&bundle).unwrap();
    refused(shim.pause("a"), Code::FAILED_PRECONDITION);
    refused(shim.resume("a"), Code::FAILED_PRECONDITION);
    assert_eq!(run(&shim, "a"), 0);
    refused(shim.pause("a"), Code::FAILED_PRECONDITION);
    let text = refused(shim.resume("a"), Code::FAILED_PRECONDITION);
    assert_eq!(text, "cannot resume a task that is stopped");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// Every kind of limit, set and read back.
fn check_limits(containerd: &Containerd, shim: &Shim, mebibytes: u64) {
    let bytes = mebibytes << 20;
    let resources = json!({
        "memory": { "limit": bytes, "swap": 2 * bytes, "reservation": bytes / 2 },
        "cpu": { "shares": 2, "quota": 30_000, "period": 60_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 77 },
        // The whole spec comes along. What device rules do is in `attack::devices`.
        "devices": [{ "allow": false, "access": "rwm" }],
    });
    update(shim, &resources).unwrap();
    let expected = either(
        [
            ("memory", "memory.limit_in_bytes", bytes.to_string()),
            (
                "memory",
                "memory.memsw.limit_in_bytes",
                (2 * bytes).to_string(),
            ),
            (
                "memory",
                "memory.soft_limit_in_bytes",
                (bytes / 2).to_string(),
            ),
            ("cpu", "cpu.shares", "2".into()),
            ("cpu", "cpu.cfs_quota_us", "30000".into()),
            ("cpu", "cpu.cfs_period_us", "60000".into()),
            ("cpuset", "cpuset.cpus", "0".into()),
            ("cpuset", "cpuset.mems", "0".into()),
            ("pids", "pids.max", "77".into()),
        ]
        .to_vec(),
        [
            ("memory", "memory.max", bytes.to_string()),
            // Without the memory itself here.
            ("memory", "memory.swap.max", bytes.to_string()),
            ("memory", "memory.low", (bytes / 2).to_string()),
            ("cpu", "cpu.weight", "1".into()),
            ("cpu", "cpu.max", "30000 60000".into()),
            ("cpuset", "cpuset.cpus", "0".into()),
            ("cpuset", "cpuset.mems", "0".into()),
            ("pids", "pids.max", "77".into()),
        ]
        .to_vec(),
    );
    for (controller, name, value) in expected {
        assert_eq!(content(containerd, controller, name), value, "{name}");
    }
}

fn limits_change_while_a_container_exists(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, IDLE);
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    check_limits(&containerd, &shim, 100);
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    // Up, beyond the old sum with swap, and down again, below the new limit.
    check_limits(&containerd, &shim, 300);
    check_limits(&containerd, &shim, 80);
    shim.pause("a").unwrap();
    check_limits(&containerd, &shim, 100);
    shim.resume("a").unwrap();
    let free = json!({
        "memory": { "limit": -1 }, "pids": { "limit": -1 }, "cpu": { "quota": -1 },
    });
    update(&shim, &free).unwrap();
    assert_eq!(content(&containerd, "pids", "pids.max"), "max");
    let (file, none) = either(("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 60000"));
    assert_eq!(content(&containerd, "cpu", file), none);
    let file = either("memory.memsw.limit_in_bytes", "memory.swap.max");
    let limit = content(&containerd, "memory", file);
    assert!(
        limit == "max" || limit.parse::<u64>().unwrap() > 1 << 60,
        "{limit}"
    );
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn a_bad_limit_is_named_and_changes_nothing(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let period = either("cpu.cfs_period_us", "cpu.max");
    let before = content(&containerd, "cpu", period);
    let cases = [
        (json!({ "cpu": { "cpus": "4000" } }), "cpuset.cpus"),
        (
            json!({ "cpu": { "quota": 1 } }),
            either("cpu.cfs_quota_us", "cpu.max"),
        ),
        (json!({ "cpu": { "shares": 1 } }), "cpu.shares"),
        (
            // Version 2 would kill for it, unless it is asked to look before.
            json!({ "memory": { "limit": 4096, "checkBeforeUpdate": unified() } }),
            either("memory.limit_in_bytes", "memory.max"),
        ),
        (
            json!({ "memory": { "limit": 200 << 20, "swap": 100 << 20 } }),
            "memory.",
        ),
        (
            json!({ "unified": { "memory.high": "many" } }),
            either("unified", "memory.high"),
        ),
        (json!({ "pids": { "limit": "many" } }), "resources: "),
    ];
    for (mut resources, name) in cases {
        // They come before the others and have to be taken back.
        if resources.get("pids").is_none() {
            resources["pids"] = json!({ "limit": 50 });
        }
        if let Some(cpu) = resources["cpu"].as_object_mut() {
            cpu.insert("period".into(), json!(70_000));
        }
        let text = refused(update(&shim, &resources), Code::INVALID_ARGUMENT);
        assert!(
            text.contains(name) && !text.contains("stay changed"),
            "{text}"
        );
        assert_eq!(content(&containerd, "pids", "pids.max"), "max", "{text}");
        assert_eq!(content(&containerd, "cpu", period), before, "{text}");
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn limits_of_an_ended_container_cannot_change(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let resources = json!({ "pids": { "limit": 5 } });
    refused(update(&shim, &resources), Code::NOT_FOUND);
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    refused(update(&shim, &resources), Code::FAILED_PRECONDITION);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn limited(bundle: Bundle, mebibytes: u64) -> Bundle {
    let limit = mebibytes << 20;
    let limited = bundle.spec(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": limit, "swap": limit });
    });
    limited.unwrap()
}

fn a_guest_without_memory_is_reported_before_its_end(engine: &str) {
    let (containerd, bundle, shim) = started(engine, MEMORY);
    let bundle = bundle.args(&["/guest.wasm", "512"]).unwrap();
    let bundle = limited(bundle, 64);
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 137);
    assert!(metrics(&shim).oom_kills > 0);
    shim.delete("a").unwrap();
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "oom", "exit", "delete"]
    );
    finish(&containerd, &shim);
}

fn each_killed_process_is_reported_once(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = limited(program(&containerd, "children"), 32);
    let shim = containerd.start(&bundle).unwrap();
    let output = bundle.stdout().unwrap();
    let mut input = bundle.stdin().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    for number in 1..=3 {
        input.write(b"\n").unwrap();
        output.wait_for(&"killed\n".repeat(number)).unwrap();
        let reported = |topics: &[String]| topics.iter().filter(|t| *t == "oom").count();
        // While the container goes on running.
        poll(|| (reported(&containerd.events().topics("a")) == number).then_some(()))
            .unwrap_or_else(|| panic!("{:?}", containerd.events().topics("a")));
    }
    assert_eq!(status(&shim), Status::RUNNING);
    assert_eq!(metrics(&shim).oom_kills, 3);
    input.close();
    shim.close_stdin("a").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 0);
    shim.delete("a").unwrap();
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "oom", "oom", "oom", "exit", "delete"]
    );
    finish(&containerd, &shim);
}

fn no_other_end_is_reported_as_lack_of_memory(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let bundle = limited(bundle, 128);
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    end(&shim, "a");
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "exit", "delete"]
    );
    finish(&containerd, &shim);
}

/// Whether two numbers differ by 5 % at most.
#[track_caller]
fn assert_close(found: u64, expected: u64) {
    let difference = found.abs_diff(expected);
    assert!(20 * difference <= expected, "{found} is not {expected}");
}

fn memory_is_what_the_control_group_says(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, MEMORY);
    bundle = bundle.args(&["/guest.wasm", "64", "wait"]).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("touched").unwrap();
    let found = metrics(&shim);
    let file = either("memory.usage_in_bytes", "memory.current");
    let usage = content(&containerd, "memory", file);
    assert_close(found.memory, usage.parse().unwrap());
    // It is the guest's memory that is counted.
    assert!(
        found.memory >= 64 << 20 && found.anonymous >= 64 << 20,
        "{found:?}"
    );
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn check_time(containerd: &Containerd, shim: &Shim) {
    let pid = shim.state("a").unwrap().pid;
    let second = TICKS_PER_SECOND;
    // A second of it, or what has been used before the program counts too much.
    poll(|| (ticks(pid) > second).then_some(())).expect("it uses the processor");
    shim.pause("a").unwrap();
    let found = metrics(shim).processor;
    assert_close(found, ticks(pid) * (1_000_000_000 / second));
    end(shim, "a");
    finish(containerd, shim);
}

fn processor_time_is_what_proc_says(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, SPIN, "spinning");
    check_time(&containerd, &shim);
    let (containerd, shim, _output) = running_program(engine, "spin", "spinning");
    check_time(&containerd, &shim);
}

/// A guest that no cache has: [`MEMORY`] with a custom section of its own.
fn unknown_guest(containerd: &Containerd) -> Vec<u8> {
    let name = containerd.namespace().as_bytes();
    let time = std::time::SystemTime::now();
    let time = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut section = vec![u8::try_from(name.len()).unwrap()];
    section.extend(name);
    section.extend(time.as_nanos().to_le_bytes());
    let mut wasm = MEMORY.wasm().to_vec();
    wasm.extend([0, u8::try_from(section.len()).unwrap()]);
    wasm.extend(section);
    wasm
}

fn the_figures_of_an_engine_are_openmetrics(engine: &str) {
    let containerd = crate::containerd(engine);
    let wasm = unknown_guest(&containerd);
    let bundle = |id| {
        let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
        let bundle = bundle.file("/guest.wasm", &wasm, 0o755).unwrap();
        bundle.args(&["/guest.wasm", "64", "wait"]).unwrap()
    };
    let mut shims = Vec::new();
    for id in ["first", "second"] {
        let mut bundle = bundle(id);
        let shim = containerd.start(&bundle).unwrap();
        let output = bundle.stdout().unwrap();
        shim.create(&bundle).unwrap();
        shim.start(id).unwrap();
        output.wait_for("touched").unwrap();
        shims.push(shim);
    }
    let directory = containerd.directory().to_string_lossy().into_owned();
    let arguments = ["-bundle", &directory, "metrics"];
    let ran = containerd.run(containerd.directory(), &arguments, &[]);
    let text = ran.unwrap().text().unwrap();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let value = |name: &str, id: &str| {
        let container = format!("container=\"{id}\"}} ");
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&container));
        line.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    for id in ["first", "second"] {
        let memory = value("shimwright_guest_memory_bytes", id).unwrap();
        let guest = f64::from(64 << 20);
        assert!((guest..1.5 * guest).contains(&memory), "{memory}");
        assert!(value("shimwright_artifact_bytes", id).unwrap() >= 1000.0);
    }
    let compiles = !engine.contains("wasmi-");
    let expected = if compiles {
        [Some(0.0), Some(1.0)]
    } else {
        [None, None]
    };
    let hits = ["first", "second"].map(|id| value("shimwright_cache_hit", id));
    assert_eq!(hits, expected);
    let seconds = ["first", "second"].map(|id| value("shimwright_compile_seconds", id));
    assert_eq!(seconds.map(|value| value.is_some()), [compiles, false]);
    for (shim, id) in shims.iter().zip(["first", "second"]) {
        end(shim, id);
    }
    finish(&containerd, &shims[0]);
}

fn groups_that_cannot_be_made_leave_none(engine: &str) {
    let containerd = crate::containerd(engine);
    // Longer than a path may be, while each of those above it could be made.
    let path = format!("/{}/{}", containerd.namespace(), "x/".repeat(2100));
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = bundle
        .spec(|spec| spec["linux"]["cgroupsPath"] = json!(path))
        .unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let (_, text) = shimwright_testkit::shim::refusal(shim.create(&bundle)).unwrap();
    assert!(text.contains("File name too long"), "{text}");
    finish(&containerd, &shim);
}
