//! The process: its arguments, environment, user, limits and what the kernel is told about it.

use serde_json::json;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = program();
    cases.extend(user());
    cases.extend(capabilities());
    cases.extend(kernel());
    cases
}

/// The sets of capabilities that a spec of containerd has.
const SETS: [&str; 3] = ["bounding", "effective", "permitted"];

fn program() -> Vec<Case> {
    vec![
        Case::new("args: any text, empty ones too", |stage| {
            stage.steps(&["", "a b", "ü", "read:/etc/group", "exit=3"]);
        }),
        Case::new("args: a program of PATH", |stage| {
            stage.link("/probe", "/bin/of-path");
            stage.process(json!({ "args": ["of-path", "report"], "env": ["PATH=/no:/bin"] }));
        }),
        Case::new("args: a program of the working directory", |stage| {
            stage.process(json!({ "args": ["./probe", "report"] }));
        }),
        Case::new("commandLine: has no effect", |stage| {
            stage.process(json!({ "commandLine": "a" }));
        }),
        Case::new("env: absent HOME is that of the user", |stage| {
            stage.process(json!({ "env": ["PATH=/bin"], "user": { "uid": 1000, "gid": 1000 } }));
        }),
        Case::new(
            "env: absent HOME of a user without an entry is /",
            |stage| {
                stage.process(json!({ "env": ["PATH=/bin"], "user": { "uid": 77, "gid": 77 } }));
            },
        ),
        Case::new("env: a HOME stays", |stage| {
            stage.process(json!({ "env": ["PATH=/bin", "HOME=/elsewhere"] }));
        }),
        Case::new("env: an empty HOME", |stage| {
            stage.process(json!({ "env": ["PATH=/bin", "HOME="] }));
        }),
        Case::new("env: a name twice", |stage| {
            stage.process(json!({ "env": ["A=1", "B=2", "A=3", "PATH=/bin"] }));
        }),
        Case::new("env: without a value or a name", |stage| {
            stage.process(json!({ "env": ["A=", "PATH=/bin", "B=x=y"] }));
        }),
        Case::new("cwd: a directory", |stage| {
            stage.directory("/work");
            stage.process(json!({ "cwd": "/work" }));
        }),
        Case::new("cwd: a missing one is made", |stage| {
            stage.process(json!({ "cwd": "/not/there" }));
        }),
        Case::new("cwd: a missing one is made for another user", |stage| {
            stage.process(json!({ "cwd": "/not/there", "user": { "uid": 1000, "gid": 1000 } }));
        }),
        Case::new("cwd: one through a link", |stage| {
            stage.directory("/work").link("/work", "/link");
            stage.process(json!({ "cwd": "/link" }));
        }),
        Case::new("cwd: one in a mount", |stage| {
            stage
                .bind("/v", &["bind"])
                .process(json!({ "cwd": "/v/new" }));
        }),
        Case::new("cwd: one that only its user may enter", |stage| {
            stage.directory("/home/user");
            let home = stage.root("/home/user");
            stage.act(|| {
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::os::unix::fs::chown(&home, Some(1000), Some(1000))?;
                std::fs::set_permissions(&home, private)
            });
            stage.process(json!({ "cwd": "/home/user", "user": { "uid": 1000, "gid": 1000 } }));
        }),
        Case::new("terminal: with a size", |stage| {
            let size = json!({ "width": 100, "height": 30 });
            stage.process(json!({ "terminal": true, "consoleSize": size }));
        }),
        Case::new("terminal: without a size", |stage| {
            stage.process(json!({ "terminal": true }));
        }),
        Case::new("terminal: of another user", |stage| {
            stage.process(json!({ "terminal": true, "user": { "uid": 1000, "gid": 1000 } }));
        }),
        Case::new("consoleSize: without a terminal", |stage| {
            stage.process(json!({ "consoleSize": { "width": 100, "height": 30 } }));
        }),
    ]
}

fn user() -> Vec<Case> {
    vec![
        Case::new("user: another one", |stage| {
            stage.process(json!({ "user": { "uid": 1000, "gid": 1001 } }));
        }),
        Case::new("user: more groups", |stage| {
            let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 7, 1000] });
            stage.process(json!({ "user": user }));
        }),
        Case::new("user: root with more groups", |stage| {
            stage.process(json!({ "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] } }));
        }),
        Case::new("user: a umask", |stage| {
            stage.process(json!({ "user": { "uid": 0, "gid": 0, "umask": 63 } }));
        }),
        Case::new("user: umask 0", |stage| {
            stage.process(json!({ "user": { "uid": 0, "gid": 0, "umask": 0 } }));
        }),
        Case::new("user: a name has no effect", |stage| {
            stage.process(json!({ "user": { "uid": 0, "gid": 0, "username": "user" } }));
        }),
    ]
}

fn capabilities() -> Vec<Case> {
    vec![
        Case::new("capabilities: one more", |stage| {
            stage.capability("CAP_SYS_ADMIN");
        }),
        Case::new("capabilities: of another user", |stage| {
            stage.process(json!({ "user": { "uid": 1000, "gid": 1000 } }));
            stage.capabilities(&SETS, &["CAP_CHOWN", "CAP_KILL"]);
        }),
        Case::new("capabilities: ambient ones of another user", |stage| {
            stage.process(json!({ "user": { "uid": 1000, "gid": 1000 } }));
            stage.capabilities(&SETS, &["CAP_CHOWN", "CAP_KILL"]);
            stage.capabilities(&["inheritable", "ambient"], &["CAP_KILL"]);
        }),
        Case::new("capabilities: inheritable ones", |stage| {
            stage.capabilities(&["inheritable"], &["CAP_KILL"]);
        }),
        Case::new("capabilities: bounding ones alone", |stage| {
            stage.capabilities(&["effective", "permitted"], &[]);
        }),
        Case::new(
            "capabilities: effective and permitted ones differ",
            |stage| {
                stage.capabilities(&["effective"], &["CAP_KILL"]);
            },
        ),
        Case::new("capabilities: empty sets", |stage| {
            stage.capabilities(&SETS, &[]);
        }),
        Case::new("capabilities: an unknown one is left out", |stage| {
            stage.capability("CAP_FUTURE");
        }),
        Case::new("capabilities: a new one", |stage| {
            stage
                .capability("CAP_CHECKPOINT_RESTORE")
                .capability("CAP_BPF");
        }),
        Case::new("noNewPrivileges: off", |stage| {
            stage.process(json!({ "noNewPrivileges": false }));
        }),
    ]
}

fn kernel() -> Vec<Case> {
    let mut cases = vec![
        Case::new("rlimits: several", |stage| {
            let limit = |kind: &str, soft: u64, hard: u64| {
                json!({ "type": kind, "soft": soft, "hard": hard })
            };
            stage.process(json!({ "rlimits": [
                limit("RLIMIT_NOFILE", 100, 200), limit("RLIMIT_CORE", 0, 0),
                limit("RLIMIT_STACK", 1 << 23, 1 << 24), limit("RLIMIT_MEMLOCK", 1 << 16, 1 << 17),
                limit("RLIMIT_CPU", 10, 20), limit("RLIMIT_MSGQUEUE", 1000, 2000),
                limit("RLIMIT_NPROC", u64::MAX, u64::MAX),
            ] }));
        })
        .as_the_node(),
        Case::new("oomScoreAdj: higher", |stage| {
            stage.process(json!({ "oomScoreAdj": 500 }));
        }),
        Case::new("oomScoreAdj: lower", |stage| {
            stage.process(json!({ "oomScoreAdj": -500 }));
        })
        .as_the_node(),
        Case::new("oomScoreAdj: 0", |stage| {
            stage.process(json!({ "oomScoreAdj": 0 }));
        }),
        Case::new("ioPriority: best effort", |stage| {
            let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
            stage.process(json!({ "ioPriority": priority }));
        }),
        Case::new("ioPriority: idle", |stage| {
            let priority = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
            stage.process(json!({ "ioPriority": priority }));
        }),
        Case::new("ioPriority: real time", |stage| {
            let priority = json!({ "class": "IOPRIO_CLASS_RT", "priority": 2 });
            stage.process(json!({ "ioPriority": priority }));
        })
        .as_the_node(),
        Case::new("personality: 32 bits", |stage| {
            stage.linux(json!({ "personality": { "domain": "LINUX32" } }));
        }),
        Case::new("personality: of this machine", |stage| {
            stage.linux(json!({ "personality": { "domain": "LINUX" } }));
        }),
    ];
    cases.extend(scheduler());
    cases
}

fn scheduler() -> Vec<Case> {
    vec![
        Case::new("scheduler: nice", |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": 5 } }));
        }),
        Case::new("scheduler: lower than nice 0", |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": -5 } }));
        })
        .as_the_node(),
        Case::new("scheduler: batch", |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_BATCH", "nice": 3 } }));
        }),
        Case::new("scheduler: idle", |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_IDLE" } }));
        }),
        Case::new("scheduler: first in, first out", |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_FIFO", "priority": 10 } }));
        })
        .as_the_node(),
        Case::new("scheduler: round robin, reset on fork", |stage| {
            let flags = ["SCHED_FLAG_RESET_ON_FORK"];
            let scheduler = json!({ "policy": "SCHED_RR", "priority": 3, "flags": flags });
            stage.process(json!({ "scheduler": scheduler }));
        })
        .as_the_node(),
        Case::new("scheduler: deadline", |stage| {
            let scheduler = json!({
                "policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 20_000_000,
                "period": 30_000_000,
            });
            stage.process(json!({ "scheduler": scheduler }));
        })
        .as_the_node(),
    ]
}
