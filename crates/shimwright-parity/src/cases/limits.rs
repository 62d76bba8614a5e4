//! Limits of the container's cgroup.

use serde_json::json;

use crate::{Case, Cgroups};

/// One case for each set of limits.
macro_rules! limits {
    ($($name:literal $cgroups:ident $limits:tt),* $(,)?) => { vec![$(
        Case::new(concat!("limits: ", $name), |stage| {
            stage.resources(json!($limits));
        })
        .as_the_node()
        .on(Cgroups::$cgroups),
    )*] };
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = memory();
    cases.extend(processors());
    cases.extend(others());
    cases
}

fn memory() -> Vec<Case> {
    limits![
        "memory" Any { "memory": { "limit": 67_108_864 } },
        "memory, and swap" Any { "memory": { "limit": 67_108_864, "swap": 134_217_728 } },
        "memory without an end" Any { "memory": { "limit": -1, "swap": -1 } },
        "memory 0 is none" Any { "memory": { "limit": 0, "swap": 0, "reservation": 0 } },
        "memory reservation" Any { "memory": { "limit": 67_108_864, "reservation": 33_554_432 } },
        "swap without a limit" Any { "memory": { "swap": 134_217_728 } },
        "swappiness" Any { "memory": { "swappiness": 10 } },
        "kernel memory" Any { "memory": { "limit": 67_108_864, "kernel": 33_554_432 } },
        "kernel memory for TCP" Any { "memory": { "kernelTCP": 33_554_432 } },
        "no OOM killer" Any { "memory": { "limit": 67_108_864, "disableOOMKiller": true } },
        "the OOM killer" Any { "memory": { "limit": 67_108_864, "disableOOMKiller": false } },
        "hierarchy" Any { "memory": { "limit": 67_108_864, "useHierarchy": true } },
        "check before an update" Any {
            "memory": { "limit": 67_108_864, "checkBeforeUpdate": true },
        },
    ]
}

fn processors() -> Vec<Case> {
    limits![
        "shares" Any { "cpu": { "shares": 512 } },
        "the fewest shares" Any { "cpu": { "shares": 2 } },
        "shares 0 is none" Any { "cpu": { "shares": 0 } },
        "quota" Any { "cpu": { "quota": 50_000, "period": 100_000 } },
        "quota without a period" Any { "cpu": { "quota": 50_000 } },
        "quota without an end" Any { "cpu": { "quota": -1, "period": 100_000 } },
        "period" Any { "cpu": { "period": 50_000 } },
        "burst" Any { "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 } },
        "idle" Any { "cpu": { "idle": 1 } },
        "processors and memory nodes" Any { "cpu": { "cpus": "0", "mems": "0" } },
        "real time" Any { "cpu": { "realtimePeriod": 1_000_000, "realtimeRuntime": 1000 } },
    ]
}

fn others() -> Vec<Case> {
    limits![
        "pids" Any { "pids": { "limit": 20 } },
        "pids without an end" Any { "pids": { "limit": -1 } },
        "pids 0" Any { "pids": { "limit": 0 } },
        "weight of block devices" Any { "blockIO": { "weight": 200 } },
        "leaf weight of block devices" Any { "blockIO": { "leafWeight": 200 } },
        "weight of one block device" Any {
            "blockIO": { "weightDevice": [{ "major": 7, "minor": 0, "weight": 300 }] },
        },
        "leaf weight of one block device" Any {
            "blockIO": { "weightDevice": [{ "major": 7, "minor": 0, "leafWeight": 300 }] },
        },
        "rates of block devices" Any { "blockIO": {
            "throttleReadBpsDevice": [{ "major": 7, "minor": 0, "rate": 1_048_576 }],
            "throttleWriteBpsDevice": [{ "major": 7, "minor": 0, "rate": 2_097_152 }],
            "throttleReadIOPSDevice": [{ "major": 7, "minor": 0, "rate": 100 }],
            "throttleWriteIOPSDevice": [{ "major": 7, "minor": 0, "rate": 200 }],
        } },
        "huge pages" Any { "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] },
        "class of packets" Any { "network": { "classID": 1_048_577 } },
        "priorities of packets" Any {
            "network": { "priorities": [{ "name": "lo", "priority": 5 }] },
        },
        "rdma" Any { "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10000 } } },
        "unified" Any { "unified": { "memory.high": "67108864" } },
        "unified, several" V2 { "unified": { "pids.max": "30", "memory.min": "1048576" } },
        "unified, an unknown file" Any { "unified": { "memory.nope": "1" } },
        "several at once" Any {
            "memory": { "limit": 67_108_864 }, "pids": { "limit": 50 },
            "cpu": { "shares": 256, "quota": 20_000, "period": 100_000, "cpus": "0" },
        },
    ]
}
