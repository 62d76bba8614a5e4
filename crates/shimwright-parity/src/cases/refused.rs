//! Values that runc refuses: so do we, with an error that names them.

use serde_json::json;

use crate::{Case, Cgroups};

/// One case for each change.
macro_rules! refused {
    ($($name:literal $text:literal $change:expr),* $(,)?) => { vec![$(
        Case::new(concat!("refused: ", $name), $change).refused($text),
    )*] };
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = of_process();
    cases.extend(of_mounts());
    cases.extend(of_linux());
    cases.extend(of_limits());
    cases
}

fn of_process() -> Vec<Case> {
    refused![
        "no process" "process" |stage| {
            stage.spec["process"] = json!(null);
        },
        "no args" "arguments" |stage| {
            stage.process(json!({ "args": null }));
        },
        "empty args" "arguments" |stage| {
            stage.process(json!({ "args": [] }));
        },
        "a program that is not there" "/nope" |stage| {
            stage.process(json!({ "args": ["/nope"] }));
        },
        "a program that is not in PATH" "nope" |stage| {
            stage.process(json!({ "args": ["nope"] }));
        },
        "a program that may not be executed" "/etc/passwd" |stage| {
            stage.process(json!({ "args": ["/etc/passwd"] }));
        },
        "a relative cwd" "cwd" |stage| {
            stage.process(json!({ "cwd": "relative" }));
        },
        "no cwd" "cwd" |stage| {
            stage.process(json!({ "cwd": null }));
        },
        "an empty cwd" "cwd" |stage| {
            stage.process(json!({ "cwd": "" }));
        },
        "a NUL in a variable" "NUL" |stage| {
            stage.process(json!({ "env": ["A=a\0b"] }));
        },
        "a NUL in an argument" "NUL" |stage| {
            stage.process(json!({ "args": ["/probe", "a\0b"] }));
        },
        "an unknown limit" "RLIMIT_NOPE" |stage| {
            let limit = json!({ "type": "RLIMIT_NOPE", "soft": 1, "hard": 1 });
            stage.process(json!({ "rlimits": [limit] }));
        },
        "a soft limit above the hard one" "RLIMIT_NOFILE" |stage| {
            let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 10 });
            stage.process(json!({ "rlimits": [limit] }));
        },
        "an unknown policy" "SCHED_NOPE" |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_NOPE" } }));
        },
        "a nice value out of range" "nice" |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": 99 } }));
        },
        "a priority of another policy" "priority" |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_OTHER", "priority": 9 } }));
        },
        "a runtime of another policy" "runtime" |stage| {
            stage.process(json!({ "scheduler": { "policy": "SCHED_OTHER", "runtime": 9 } }));
        },
        "an unknown class of io" "IOPRIO_NOPE" |stage| {
            let priority = json!({ "class": "IOPRIO_NOPE", "priority": 1 });
            stage.process(json!({ "ioPriority": priority }));
        },
        "a priority of io out of range" "ioPriority" |stage| {
            let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 });
            stage.process(json!({ "ioPriority": priority }));
        },
        "an oomScoreAdj out of range" "oom" |stage| {
            stage.process(json!({ "oomScoreAdj": 5000 }));
        },
        "an AppArmor profile without AppArmor" "apparmorProfile" |stage| {
            stage.process(json!({ "apparmorProfile": "nope" }));
        },
        "an SELinux label without SELinux" "selinuxLabel" |stage| {
            stage.process(json!({ "selinuxLabel": "system_u:system_r:container_t:s0" }));
        },
    ]
}

fn of_mounts() -> Vec<Case> {
    refused![
        "a source that is not there" "/not/there" |stage| {
            stage.mount(json!({
                "destination": "/v", "type": "bind", "source": "/not/there", "options": ["bind"],
            }));
        },
        "an unknown file system" "nope" |stage| {
            stage.mount(json!({ "destination": "/v", "type": "nope", "source": "nope" }));
        },
        "a mount over the root" "/" |stage| {
            stage.bind("/", &["bind"]);
        },
        "a directory over a file" "/etc/passwd" |stage| {
            stage.bind("/etc/passwd", &["bind"]);
        },
        "a file over a directory" "/etc" |stage| {
            let source = stage.source_file("one");
            stage.mount(json!({
                "destination": "/etc", "type": "bind", "source": source, "options": ["bind"],
            }));
        },
        "a mount in /proc" "/proc" |stage| {
            stage.bind("/proc/sys", &["bind"]);
        },
        "proc through a link" "/proc" |stage| {
            stage.act(|| std::fs::remove_dir(stage.root("/proc")));
            stage.directory("/elsewhere").link("/elsewhere", "/proc");
        },
        "a mount label without SELinux" "mountLabel" |stage| {
            let label = "system_u:object_r:container_file_t:s0";
            stage.linux(json!({ "mountLabel": label }));
        },
        "a root that is not there" "root" |stage| {
            stage.spec["root"]["path"] = json!("/not/there");
        },
        "no root" "root" |stage| {
            stage.spec["root"] = json!(null);
        },
        "mappings without a user namespace or idmap" "Mappings" |stage| {
            let source = stage.source("source");
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            stage.mount(json!({
                "destination": "/v", "type": "bind", "source": source, "options": ["bind"],
                "uidMappings": map,
            }));
        },
    ]
}

fn of_linux() -> Vec<Case> {
    refused![
        "an unknown namespace" "nope" |stage| {
            stage.namespace(json!({ "type": "nope" }));
        },
        "a namespace twice" "namespace" |stage| {
            stage.namespace(json!({ "type": "uts" }));
        },
        "a namespace that is not there" "/not/there" |stage| {
            stage.without_namespace("uts");
            stage.namespace(json!({ "type": "uts", "path": "/not/there" }));
        },
        "a namespace of another type" "uts" |stage| {
            stage.without_namespace("uts");
            stage.namespace(json!({ "type": "uts", "path": "/proc/self/ns/net" }));
        },
        "no mount namespace" "mount" |stage| {
            stage.without_namespace("mount");
        },
        "no namespaces" "namespace" |stage| {
            stage.linux(json!({ "namespaces": [] }));
        },
        "a user namespace without mappings" "Mappings" |stage| {
            stage.namespace(json!({ "type": "user" }));
        },
        "mappings without a user namespace" "Mappings" |stage| {
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            stage.linux(json!({ "uidMappings": map, "gidMappings": map }));
        },
        "a user without a mapping" "user" |stage| {
            super::namespaces::user(stage);
            stage.process(json!({ "user": { "uid": 70000, "gid": 70000 } }));
        },
        "time offsets without a namespace" "timeOffsets" |stage| {
            stage.linux(json!({ "timeOffsets": { "boottime": { "secs": 1 } } }));
        },
        "an unknown clock" "nope" |stage| {
            stage.namespace(json!({ "type": "time" }));
            stage.linux(json!({ "timeOffsets": { "nope": { "secs": 1 } } }));
        },
        "a hostname without a namespace" "hostname" |stage| {
            stage.without_namespace("uts");
            stage.spec["hostname"] = json!("parity");
        },
        "a domain name without a namespace" "domainname" |stage| {
            stage.without_namespace("uts");
            stage.spec["domainname"] = json!("parity");
        },
        "an unknown propagation" "rootfsPropagation" |stage| {
            stage.linux(json!({ "rootfsPropagation": "nope" }));
        },
        "a sysctl of the node" "vm.overcommit_memory" |stage| {
            stage.linux(json!({ "sysctl": { "vm.overcommit_memory": "1" } }));
        },
        "a sysctl that is not there" "net.nope" |stage| {
            stage.linux(json!({ "sysctl": { "net.nope": "1" } }));
        },
        "a sysctl of the network without a namespace" "net.ipv4.ip_forward" |stage| {
            stage.without_namespace("network");
            stage.linux(json!({ "sysctl": { "net.ipv4.ip_forward": "1" } }));
        },
        "a sysctl with dots" ".." |stage| {
            stage.linux(json!({ "sysctl": { "net/../vm/overcommit_memory": "1" } }));
        },
        "the host name as a sysctl" "kernel.hostname" |stage| {
            stage.linux(json!({ "sysctl": { "kernel.hostname": "parity" } }));
        },
        "an unknown action of a filter" "SCMP_ACT_NOPE" |stage| {
            stage.linux(json!({ "seccomp": { "defaultAction": "SCMP_ACT_NOPE" } }));
        },
        "an unknown architecture" "SCMP_ARCH_NOPE" |stage| {
            let seccomp =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"] });
            stage.linux(json!({ "seccomp": seccomp }));
        },
        "a filter that notifies without a listener" "listenerPath" |stage| {
            let calls = json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]);
            let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls });
            stage.linux(json!({ "seccomp": seccomp }));
        },
        "a listener that does not listen" "listenerPath" |stage| {
            let calls = json!([{ "names": ["chroot"], "action": "SCMP_ACT_NOTIFY" }]);
            stage.linux(json!({ "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls,
                "listenerPath": "/not/there", "listenerMetadata": "about",
            } }));
        },
        "an unknown personality" "NOPE" |stage| {
            stage.linux(json!({ "personality": { "domain": "NOPE" } }));
        },
        "flags of a personality" "personality" |stage| {
            let personality = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
            stage.linux(json!({ "personality": personality }));
        },
        "rdt without support" "intelRdt" |stage| {
            stage.linux(json!({ "intelRdt": { "closID": "a", "l3CacheSchema": "L3:0=f" } }));
        },
        "a device of an unknown type" "type" |stage| {
            stage.linux(json!({ "devices": [
                { "path": "/dev/x", "type": "z", "major": 1, "minor": 3 },
            ] }));
        },
        "a version of another spec" "ociVersion" |stage| {
            stage.spec["ociVersion"] = json!("2.0.0");
        },
        "no version" "ociVersion" |stage| {
            stage.spec["ociVersion"] = json!(null);
        },
    ]
}

fn of_limits() -> Vec<Case> {
    let mut cases = refused![
        "a device rule of an unknown type" "type" |stage| {
            let rule = json!({ "allow": true, "type": "z", "access": "r" });
            stage.resources(json!({ "devices": [rule] }));
        },
        "a device rule with an unknown access" "access" |stage| {
            let rule = json!({ "allow": true, "type": "c", "access": "x" });
            stage.resources(json!({ "devices": [rule] }));
        },
        "swap below memory" "swap" |stage| {
            let memory = json!({ "limit": 67_108_864, "swap": 33_554_432 });
            stage.resources(json!({ "memory": memory }));
        },
        "a burst above the quota" "burst" |stage| {
            let cpu = json!({ "quota": 10_000, "period": 100_000, "burst": 20_000 });
            stage.resources(json!({ "cpu": cpu }));
        },
        "processors that are not there" "cpus" |stage| {
            stage.resources(json!({ "cpu": { "cpus": "900" } }));
        },
        "a swappiness out of range" "swappiness" |stage| {
            stage.resources(json!({ "memory": { "swappiness": 900 } }));
        },
    ];
    cases.push(
        Case::new("refused: unified limits", |stage| {
            stage.resources(json!({ "unified": { "memory.high": "100M" } }));
        })
        .refused("unified")
        .on(Cgroups::V1),
    );
    cases
}
