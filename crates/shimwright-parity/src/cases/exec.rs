//! Execs, which bring a process of their own.

use serde_json::json;

use crate::Case;
use crate::stage::merge;

pub(crate) fn cases() -> Vec<Case> {
    let plain = |_: &mut crate::Stage| {};
    vec![
        Case::new("exec: as the container's process", plain).exec(|_| {}),
        Case::new("exec: an exit status", plain).exec(|process| {
            process["args"] = json!(["/probe", "report", "exit=7"]);
        }),
        Case::new("exec: absent HOME is that of the user", plain).exec(|process| {
            let user = json!({ "uid": 1000, "gid": 1000 });
            merge(
                process,
                json!({ "env": ["PATH=/bin", "A=b"], "user": user }),
            );
        }),
        Case::new("exec: a missing working directory", plain).exec(|process| {
            process["cwd"] = json!("/not/there");
        }),
        Case::new("exec: another user with groups and a umask", plain).exec(|process| {
            process["user"] =
                json!({ "uid": 1000, "gid": 1001, "additionalGids": [5], "umask": 63 });
        }),
        Case::new("exec: without capabilities", plain)
            .exec(|process| {
                merge(process, json!({ "capabilities": null }));
            })
            .absent(&["process.capabilities.bounding"]),
        Case::new("exec: more capabilities than the container", plain).exec(|process| {
            for set in [
                "bounding",
                "effective",
                "permitted",
                "inheritable",
                "ambient",
            ] {
                process["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_KILL"]);
            }
        }),
        Case::new("exec: new privileges", plain).exec(|process| {
            process["noNewPrivileges"] = json!(false);
        }),
        Case::new("exec: limits", plain).exec(|process| {
            let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 });
            merge(process, json!({ "rlimits": [limit], "oomScoreAdj": 300 }));
        }),
        Case::new("exec: without limits", plain)
            .exec(|process| {
                merge(process, json!({ "rlimits": null }));
            })
            .absent(&["process.rlimits[].type"]),
        Case::new("exec: io priority and scheduler", plain).exec(|process| {
            let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
            let scheduler = json!({ "policy": "SCHED_BATCH", "nice": 4 });
            merge(
                process,
                json!({ "ioPriority": priority, "scheduler": scheduler }),
            );
        }),
        Case::new("exec: processors", plain).exec(|process| {
            process["execCPUAffinity"] = json!({ "initial": "0", "final": "1" });
        }),
        Case::new("exec: a terminal", plain).exec(|process| {
            let size = json!({ "width": 90, "height": 20 });
            merge(process, json!({ "terminal": true, "consoleSize": size }));
        }),
        Case::new("exec: a terminal of another user", plain).exec(|process| {
            let user = json!({ "uid": 1000, "gid": 1000 });
            merge(process, json!({ "terminal": true, "user": user }));
        }),
        Case::new(
            "exec: into a container with a filter, a personality and a scheduler",
            |stage| {
                stage.linux(json!({
                    "personality": { "domain": "LINUX32" },
                    "seccomp": { "defaultAction": "SCMP_ACT_ALLOW" },
                }));
                stage.process(json!({
                    "scheduler": { "policy": "SCHED_BATCH", "nice": 4 }, "oomScoreAdj": 100,
                    "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
                }));
            },
        )
        .exec(|process| {
            merge(
                process,
                json!({ "scheduler": null, "oomScoreAdj": null, "ioPriority": null }),
            );
        }),
        Case::new("exec: into another user's container", |stage| {
            stage.process(json!({ "user": { "uid": 1000, "gid": 1000, "umask": 63 } }));
        })
        .exec(|process| {
            process["user"] = json!({ "uid": 0, "gid": 0 });
        }),
        Case::new("exec: a program that is not there", plain).exec(|process| {
            process["args"] = json!(["/nope"]);
        }),
        Case::new("exec: a file that is no program", plain).exec(|process| {
            process["args"] = json!(["/etc/passwd"]);
        }),
    ]
}
