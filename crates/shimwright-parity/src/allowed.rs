//! The differences that are allowed, each with a reason.

use crate::case::Cgroups;
use crate::compare::Difference;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The cases: `*` stands for any text.
    pub cases: &'static str,
    /// What differs, as [`Difference::place`] has it.
    pub place: &'static str,
    /// Where it does.
    pub cgroups: Cgroups,
    /// Why.
    pub reason: &'static str,
}

impl Allowed {
    /// Whether a row is about a case.
    pub fn is_about(&self, case: &str, is_v1: bool) -> bool {
        self.cgroups.includes(is_v1) && matches(self.cases, case)
    }

    /// Whether it allows a difference.
    pub fn allows(&self, difference: &Difference) -> bool {
        matches(self.place, &difference.place)
    }
}

/// Hooks that run in the container are not among them: they get nothing of ours.
const OF_THE_RUNTIME: &str =
    "a hook of the node without an environment gets that of the process which runs it";

/// All of them.
pub const ALL: &[Allowed] = &[
    row(
        "*",
        "*inside/process/parent death signal",
        "a container dies with its shim process: docs/decisions/0001-process-model.md",
    ),
    row(
        "*terminal*",
        "*inside/terminal/output",
        "runc's command clears ONLCR on the terminal that it copies; containerd's shim for runc has \
         the container's terminal itself, as ours has, and clears nothing",
    ),
    row(
        "absent: capabilities*",
        "*/status/Cap*",
        "runc 1.3 leaves all capabilities to a program without a list, runc 1.1 and ours none",
    ),
    row(
        "absent: /proc",
        "outcome",
        "runc reads /proc/sys in the container; ours does not need it",
    ),
    row("absent: mounts", "outcome", "as without /proc"),
    row(
        "hooks: *",
        "hooks/*/state/ociVersion",
        "the version of the spec that each runtime implements",
    ),
    row(
        "annotations: hooks get them",
        "hooks/*/state/ociVersion",
        "the version of the spec that each runtime implements",
    ),
    row(
        "hooks: poststop*",
        "hooks/*/state/pid",
        "the pid of the process that has ended is 0 for runc, and absent",
    ),
    row(
        "bind: no option but the type",
        "outcome",
        "a mount of the type `bind` is a bind mount; runc needs the option too",
    ),
    row(
        "*: defaults",
        "outcome",
        "`defaults` is no option for runc either, but mount(8) has it, and it means nothing",
    ),
    row(
        "user: a name has no effect",
        "outcome",
        "a name that only Windows has is a mistake, and ours says so",
    ),
    row(
        "solaris: has no effect",
        "outcome",
        "a spec for another system is a mistake, and ours says so",
    ),
    row(
        "windows: has no effect",
        "outcome",
        "a spec for another system is a mistake, and ours says so",
    ),
    row(
        "vm: has no effect",
        "outcome",
        "a spec for another kind of runtime is a mistake, and ours says so",
    ),
    row(
        "zos: has no effect",
        "outcome",
        "a spec for another system is a mistake, and ours says so",
    ),
    row(
        "mappings outside of linux: have no effect",
        "outcome",
        "only the types of oci-spec have these fields; ours says that they are not those of `linux`",
    ),
    row(
        "commandLine: has no effect",
        "outcome",
        "a field that only Windows has is a mistake, and ours says so",
    ),
    row(
        "refused: mappings without a user namespace",
        "outcome",
        "runc ignores mappings that nothing uses; ours says that the namespace is missing",
    ),
    row(
        "refused: flags of a personality",
        "outcome",
        "the spec has no flags yet; runc ignores what it is given",
    ),
    row(
        "refused: a version of another spec",
        "outcome",
        "a spec of the version 2 may mean anything",
    ),
    row(
        "refused: a device rule with an unknown access",
        "outcome",
        "runc writes it to the kernel, which ignores it; ours says what is wrong",
    ),
    row(
        "memoryPolicy: *",
        "inside/steps/memory policy",
        "runc has memory policies since 1.4",
    ),
    row(
        "netDevices: one of the node",
        "outcome",
        "runc moves network devices since 1.4, and would fail too, as there is no such device",
    ),
    v1(
        "*",
        "*cgroup*/name=systemd*",
        "ours makes groups only where there is something to limit or to count",
    ),
    v1("*", "*cgroup*//*", "as the hierarchy of systemd"),
    v1(
        "*",
        "*inside/process/cgroup/",
        "as the hierarchy of systemd",
    ),
    v1(
        "type: cgroup*",
        "*/mounts//sys/fs/cgroup/systemd/root",
        "as the hierarchy of systemd",
    ),
    v1(
        "type: cgroup*",
        "inside/steps/list:/sys/fs/cgroup/systemd/mode",
        "as the hierarchy of systemd",
    ),
    v1(
        "user namespace: a mount of cgroups",
        "*/mounts//sys/fs/cgroup/systemd/root",
        "as the hierarchy of systemd",
    ),
    v1(
        "type: cgroup*",
        "*/mounts//sys/fs/cgroup/options",
        "the directory of the hierarchies is read-only if the mount is; with runc 1.3 it is not",
    ),
    v1(
        "type: cgroup*",
        "inside/steps/mkdir:/sys/fs/cgroup/x",
        "as the options of /sys/fs/cgroup",
    ),
    v1(
        "user namespace: a mount of cgroups",
        "*/mounts//sys/fs/cgroup/options",
        "the directory of the hierarchies is read-only if the mount is; with runc 1.3 it is not",
    ),
    v1(
        "absent: cgroupsPath",
        "*cgroup*/*",
        "runc makes the group below that of its own process, which is the shim's there; ours at the top",
    ),
    v1(
        "limits: kernel memory for TCP",
        "node/cgroups/memory/limits/memory.kmem.tcp.limit_in_bytes",
        "runc ignores it since 1.2; the kernel has it still",
    ),
    row(
        "*",
        "hooks/*/descriptors/*",
        "runc reads what hooks write through pipes, ours has them write to memory",
    ),
    row("hooks: prestart*", "hooks/*/environment", OF_THE_RUNTIME),
    row(
        "hooks: createRuntime*",
        "hooks/*/environment",
        OF_THE_RUNTIME,
    ),
    row("hooks: post*", "hooks/*/environment", OF_THE_RUNTIME),
    row("hooks: all stages*", "hooks/*/environment", OF_THE_RUNTIME),
    row("hooks: a program*", "hooks/*/environment", OF_THE_RUNTIME),
    row(
        "hooks: startContainer*",
        "hooks/*/environment",
        "the variables are those of the program in both, in another order",
    ),
    row(
        "annotations: hooks get them",
        "hooks/*/environment",
        OF_THE_RUNTIME,
    ),
    row(
        "hooks: *",
        "hooks/*/state/status",
        "the container runs when poststart hooks do, as the spec says; runc says that it is created",
    ),
    row(
        "hooks: poststart, that*",
        "outcome",
        "the spec asks for a warning (\"Lifecycle\", step 9); runc ends the container",
    ),
    row(
        "hooks: poststop, that*",
        "hooks*",
        "the spec asks for a warning and the next hook (\"Lifecycle\", step 13); runc stops at the first",
    ),
    row(
        "*user namespace*",
        "*/devices//dev/mqueue/owner",
        "runc makes it before the group of the container is there",
    ),
    row(
        "bind: *acl",
        "outcome",
        "runc 1.1 ignores such an option, and clients send it; 1.3 refuses it",
    ),
    row(
        "tmpfs: acl",
        "outcome",
        "a kernel without the option refuses it, and clients send it",
    ),
    row(
        "tmpfs: rro",
        "inside/steps/write:/v/file",
        "runc ignores a recursive option of what is no bind mount; ours does what it says",
    ),
    row(
        "tmpfs: rro",
        "*/mounts//v/options",
        "runc ignores a recursive option of what is no bind mount; ours does what it says",
    ),
    row(
        "exec: processors",
        "exec/outcome",
        "an exec is refused rather than run on processors that it was not to use",
    ),
    row(
        "*ropagation: *slave*",
        "*/mounts///propagation",
        "runc makes the mount in which the root is private, so that the root is no slave of it",
    ),
    row(
        "user namespace: without a network of its own",
        "outcome",
        "the kernel refuses a sysfs there; ours shows that of the node, with the options of the mount",
    ),
    v1(
        "hooks: all stages with a cgroup and a time namespace",
        "hooks/*/mounts//sys/fs/cgroup/*/root",
        "as the hierarchy of systemd",
    ),
    row(
        "refused: no version",
        "outcome",
        "the spec requires a version",
    ),
];

/// A row for both versions of cgroups.
const fn row(cases: &'static str, place: &'static str, reason: &'static str) -> Allowed {
    Allowed {
        cases,
        place,
        cgroups: Cgroups::Any,
        reason,
    }
}

/// A row for cgroup v1.
const fn v1(cases: &'static str, place: &'static str, reason: &'static str) -> Allowed {
    Allowed {
        cgroups: Cgroups::V1,
        ..row(cases, place, reason)
    }
}

/// Whether a text is what a pattern says, in which `*` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(found) = rest.find(part) else {
            return false;
        };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [("a", "a"), ("a*", "a"), ("*b*d", "abcd"), ("*", "")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("a*b", "a"), ("*b*b", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
