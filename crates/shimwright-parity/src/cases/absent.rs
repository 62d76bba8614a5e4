//! What a container without a part of the spec gets.

use serde_json::json;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("absent: capabilities", |stage| {
            stage.process(json!({ "capabilities": null }));
        }),
        Case::new("absent: capabilities of another user", |stage| {
            let user = json!({ "uid": 1000, "gid": 1000 });
            stage.process(json!({ "capabilities": null, "user": user }));
        }),
        Case::new("absent: environment", |stage| {
            stage.process(json!({ "env": null }));
        }),
        Case::new("absent: limits of the process", |stage| {
            stage.process(json!({ "rlimits": null }));
        }),
        Case::new("absent: noNewPrivileges", |stage| {
            stage.process(json!({ "noNewPrivileges": null }));
        }),
        Case::new("absent: resources", |stage| {
            stage.linux(json!({ "resources": null }));
        }),
        Case::new("absent: device rules", |stage| {
            stage.resources(json!({ "devices": null }));
            stage.steps(&["device:/dev,c,1,3", "device:/dev,b,7,0"]);
        }),
        Case::new("absent: masked and read-only paths", |stage| {
            stage.linux(json!({ "maskedPaths": null, "readonlyPaths": null }));
            stage.steps(&["stat:/proc/kcore", "open:/proc/sys/kernel/core_pattern"]);
        }),
        Case::new("absent: mounts", |stage| {
            stage.spec["mounts"] = json!([]);
        })
        .as_the_node(),
        Case::new("absent: /dev", |stage| {
            stage.without_mounts("/dev");
        }),
        Case::new("absent: /proc", |stage| {
            stage.without_mounts("/proc");
            stage.linux(json!({ "maskedPaths": null, "readonlyPaths": null }));
        })
        .as_the_node(),
        Case::new("absent: user", |stage| {
            stage.process(json!({ "user": null }));
        }),
        Case::new("absent: cgroupsPath", |stage| {
            stage.linux(json!({ "cgroupsPath": null }));
        }),
    ]
}
