//! Limits that change while a container exists.

use serde_json::json;
use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Containerd, Shim};

use super::{content, either, unified, update};
use crate::{end, finish, for_each_engine, refused, run, running, started};

for_each_engine! {
    limits_change_while_a_container_exists
    a_bad_limit_is_named_and_changes_nothing
    limits_of_an_ended_container_cannot_change
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
