//! What a container uses: lack of memory, statistics, and the metrics of its engine.

use serde_json::json;
use shimwright_guests::{IDLE, MEMORY, SPIN};
use shimwright_testkit::protos::protobuf::Message;
use shimwright_testkit::protos::types::task::Status;
use shimwright_testkit::protos::{cgroups, cgroups_v2};
use shimwright_testkit::{Bundle, Containerd, Shim, poll};

use super::{content, either, program, running_program, status, ticks, unified};
use crate::{end, finish, for_each_engine, run, running, started};

for_each_engine! {
    a_guest_without_memory_is_reported_before_its_end
    each_killed_process_is_reported_once
    no_other_end_is_reported_as_lack_of_memory
    memory_is_what_the_control_group_says
    processor_time_is_what_proc_says
    the_figures_of_an_engine_are_openmetrics
}

/// `USER_HZ`, which is part of the kernel's interface (`include/uapi/asm-generic/param.h`).
const TICKS_PER_SECOND: u64 = 100;

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
    let compiles = crate::engine(engine).compiles();
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
