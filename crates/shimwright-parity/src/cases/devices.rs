//! Device nodes, and the rules about which devices may be used.

use serde_json::{Value, json};

use crate::Case;

/// Devices that are tried: null, a disk of a loop device, one that rules are made for, fuse.
const TRIED: [&str; 4] = [
    "device:/dev,c,1,3",
    "device:/dev,b,7,0",
    "device:/dev,c,42,0",
    "device:/dev,c,10,229",
];

/// A device that anybody may use.
fn device(path: &str, minor: u32) -> Value {
    json!({ "path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 438 })
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = nodes();
    cases.extend(rules());
    cases
}

fn nodes() -> Vec<Case> {
    vec![
        Case::new("devices: one with a mode and an owner", |stage| {
            stage.linux(json!({ "devices": [{
                "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
                "uid": 7, "gid": 8,
            }] }));
        }),
        Case::new("devices: one without a mode", |stage| {
            let device = json!({ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3 });
            stage.linux(json!({ "devices": [device] }));
        }),
        Case::new("devices: a block device and a pipe", |stage| {
            stage.linux(json!({ "devices": [
                { "path": "/dev/disk", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600 },
                { "path": "/dev/fifo", "type": "p", "fileMode": 0o622 },
            ] }));
        }),
        Case::new("devices: an unbuffered character device", |stage| {
            stage.linux(json!({ "devices": [
                { "path": "/dev/mine", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600 },
            ] }));
        }),
        Case::new("devices: in a new directory", |stage| {
            stage.linux(json!({ "devices": [device("/dev/net/below/mine", 5)] }));
        }),
        Case::new("devices: twice the same", |stage| {
            stage.linux(json!({ "devices": [device("/dev/x", 3), device("/dev/x", 3)] }));
        }),
        Case::new("devices: one that there is anyway", |stage| {
            stage.linux(json!({ "devices": [{
                "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600,
            }] }));
        }),
        Case::new("devices: outside of /dev", |stage| {
            stage.linux(json!({ "devices": [device("/y", 5), device("/deep/down", 5)] }));
            stage.steps(&["stat:/y", "stat:/deep/down", "open:/y"]);
        }),
        Case::new("devices: outside of /dev in a read-only root", |stage| {
            stage.linux(json!({ "devices": [device("/y", 5)] }));
            stage.spec["root"]["readonly"] = json!(true);
            stage.steps(&["stat:/y"]);
        }),
        Case::new("devices: without a /dev of its own", |stage| {
            stage.without_mounts("/dev");
            stage.linux(json!({ "devices": [device("/dev/x", 3)] }));
        }),
        Case::new("devices: in a user namespace", |stage| {
            super::namespaces::user(stage);
            stage.linux(json!({ "devices": [{
                "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
                "uid": 7, "gid": 8,
            }] }));
        })
        .as_the_node(),
    ]
}

fn rules() -> Vec<Case> {
    vec![
        Case::new("device rules: those of containerd", |stage| {
            stage.steps(&TRIED);
        }),
        Case::new("device rules: all", |stage| {
            stage.resources(json!({ "devices": [{ "allow": true, "access": "rwm" }] }));
            stage.steps(&TRIED);
        }),
        Case::new("device rules: none", |stage| {
            stage.resources(json!({ "devices": [] })).steps(&TRIED);
        }),
        Case::new("device rules: one device", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 42, "minor": 0, "access": "rwm" },
            ] }));
            stage.steps(&TRIED);
        }),
        Case::new("device rules: -1 stands for any number", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 42, "minor": -1, "access": "rwm" },
            ] }));
            stage.steps(&TRIED);
        }),
        Case::new("device rules: -1 for both numbers", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "b", "major": -1, "minor": -1, "access": "r" },
                { "allow": true, "type": "c", "major": -1, "minor": -1, "access": "m" },
            ] }));
            stage.steps(&TRIED);
        }),
        Case::new("device rules: only reading", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rm" },
            ] }));
            stage.steps(&TRIED);
        }),
        Case::new("device rules: without an access", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 42, "minor": 0 },
            ] }));
            stage.steps(&TRIED);
        })
        .refused("access"),
        Case::new("device rules: the last one counts", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 42, "access": "rwm" },
                { "allow": false, "type": "c", "major": 42, "minor": 0, "access": "w" },
            ] }));
            stage.steps(&TRIED);
        })
        .as_the_node(),
        Case::new("device rules: denied after all", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": true, "type": "c", "major": 42, "access": "rwm" },
                { "allow": false, "access": "rwm" },
            ] }));
            stage.steps(&TRIED);
        }),
        Case::new("device rules: type a", |stage| {
            stage.resources(json!({ "devices": [
                { "allow": false, "type": "a", "major": -1, "minor": -1, "access": "rwm" },
                { "allow": true, "type": "a", "access": "rwm" },
            ] }));
            stage.steps(&TRIED);
        }),
    ]
}
