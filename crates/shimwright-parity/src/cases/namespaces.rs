//! Namespaces: new ones, the node's, another container's; user ids, time, sysctls, network devices.

use serde_json::json;

use crate::{Case, Stage};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("namespaces: a new cgroup namespace", |stage| {
            stage.namespace(json!({ "type": "cgroup" }));
        }),
        Case::new("namespaces: the node's network", |stage| {
            stage.without_namespace("network");
        }),
        Case::new("namespaces: the node's ipc", |stage| {
            stage.without_namespace("ipc").without_mounts("/dev/mqueue");
        }),
        Case::new("namespaces: the node's processes", |stage| {
            stage.without_namespace("pid");
        }),
        Case::new("namespaces: the node's names", |stage| {
            stage.without_namespace("uts");
        }),
        Case::new("namespaces: another's network", |stage| {
            stage.join("network");
        }),
        Case::new("namespaces: another's ipc", |stage| {
            stage.join("ipc");
        }),
        Case::new("namespaces: another's names", |stage| {
            stage.join("uts");
        }),
        Case::new("namespaces: another's cgroup namespace", |stage| {
            stage.join("cgroup");
        }),
        Case::new("namespaces: all new, and an exec", |stage| {
            stage.namespace(json!({ "type": "cgroup" }));
        })
        .exec(|_| {}),
        Case::new("netDevices: one of the node", |stage| {
            stage.linux(json!({ "netDevices": { "parity-none": { "name": "eth0" } } }));
        }),
        Case::new("memoryPolicy: bind", |stage| {
            let policy = json!({ "mode": "MPOL_BIND", "nodes": "0" });
            stage.linux(json!({ "memoryPolicy": policy }));
            stage.steps(&["memory policy"]);
        }),
        Case::new("memoryPolicy: preferred, with a flag", |stage| {
            let flags = ["MPOL_F_STATIC_NODES"];
            let policy = json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": flags });
            stage.linux(json!({ "memoryPolicy": policy }));
        }),
    ];
    cases.extend(time());
    cases.extend(users());
    cases.extend(sysctls());
    cases
}

fn time() -> Vec<Case> {
    vec![
        Case::new("namespaces: a new time namespace", |stage| {
            stage.namespace(json!({ "type": "time" }));
        }),
        Case::new("timeOffsets: in a new time namespace", |stage| {
            stage.namespace(json!({ "type": "time" }));
            stage.linux(json!({ "timeOffsets": {
                "monotonic": { "secs": 1000, "nanosecs": 5 }, "boottime": { "secs": 2000 },
            } }));
        }),
        Case::new("timeOffsets: for an exec too", |stage| {
            stage.namespace(json!({ "type": "time" }));
            stage.linux(json!({ "timeOffsets": { "boottime": { "secs": 2000 } } }));
        })
        .exec(|_| {}),
    ]
}

/// Gives a container a user namespace, in which the owner of the root is root.
pub(crate) fn user(stage: &mut Stage) {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    map_ids(stage, &map);
    own(stage, 100_000);
}

fn map_ids(stage: &mut Stage, map: &serde_json::Value) {
    stage.namespace(json!({ "type": "user" }));
    stage.linux(json!({ "uidMappings": map, "gidMappings": map }));
}

/// Has the root belong to this id, as a snapshotter would.
fn own(stage: &Stage, id: u32) {
    for path in [
        "",
        "etc",
        "tmp",
        "dev",
        "proc",
        "sys",
        "run",
        "etc/passwd",
        "etc/group",
    ] {
        stage.act(|| std::os::unix::fs::chown(stage.root(path), Some(id), Some(id)));
    }
}

fn users() -> Vec<Case> {
    vec![
        Case::new("user namespace: root", user),
        Case::new("user namespace: root, and an exec", user).exec(|_| {}),
        Case::new("user namespace: another user with groups", |stage| {
            user(stage);
            let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 1001] });
            stage.process(json!({ "user": user }));
        }),
        Case::new("user namespace: two ranges", |stage| {
            let map = json!([
                { "containerID": 0, "hostID": 100_000, "size": 1000 },
                { "containerID": 1000, "hostID": 200_000, "size": 64536 },
            ]);
            map_ids(stage, &map);
            own(stage, 100_000);
            stage.process(json!({ "user": { "uid": 1000, "gid": 1000 } }));
        }),
        Case::new(
            "user namespace: ids of users and of groups differ",
            |stage| {
                stage.namespace(json!({ "type": "user" }));
                let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 65536 }]);
                stage.linux(json!({ "uidMappings": map(100_000), "gidMappings": map(300_000) }));
            },
        ),
        Case::new("user namespace: a bind mount", |stage| {
            user(stage);
            stage.bind("/v", &["bind", "ro"]).steps(&["stat:/v/file"]);
        }),
        Case::new(
            "user namespace: a bind mount with the container's ids",
            |stage| {
                user(stage);
                let map = stage.spec["linux"]["uidMappings"].clone();
                let source = stage.source("source");
                stage.mount(json!({
                    "destination": "/v", "type": "bind", "source": source, "options": ["bind"],
                    "uidMappings": map, "gidMappings": map,
                }));
                stage.steps(&["stat:/v/file", "write:/v/new"]);
            },
        ),
        Case::new("user namespace: idmap without ids of its own", |stage| {
            user(stage);
            stage
                .bind("/v", &["bind", "idmap"])
                .steps(&["stat:/v/file"]);
        }),
        Case::new("user namespace: a terminal", |stage| {
            user(stage);
            stage.process(json!({ "terminal": true }));
        }),
        Case::new("user namespace: a mount of cgroups", |stage| {
            user(stage);
            stage.namespace(json!({ "type": "cgroup" }));
            stage.mount(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            }));
        }),
        Case::new("user namespace: without a network of its own", |stage| {
            user(stage);
            stage.without_namespace("network");
        })
        .as_the_node(),
    ]
}

fn sysctls() -> Vec<Case> {
    vec![
        Case::new("sysctl: of the network", |stage| {
            stage.linux(json!({ "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0", "net.core.somaxconn": "1000",
                "net.ipv4.ping_group_range": "0 2147483647",
            } }));
        }),
        Case::new("sysctl: of ipc", |stage| {
            stage.linux(json!({ "sysctl": {
                "kernel.msgmax": "4096", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "20",
                "kernel.sem": "250 32000 100 128",
            } }));
        }),
        Case::new("sysctl: with slashes", |stage| {
            stage.linux(json!({ "sysctl": { "net/ipv4/ip_forward": "1" } }));
        }),
        Case::new("sysctl: the name of the domain", |stage| {
            stage.linux(json!({ "sysctl": { "kernel.domainname": "example.invalid" } }));
        }),
        Case::new("sysctl: in a user namespace", |stage| {
            user(stage);
            stage.linux(json!({ "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0" } }));
        }),
    ]
}
