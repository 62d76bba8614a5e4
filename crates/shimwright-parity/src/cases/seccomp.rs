//! Filters of system calls.

use serde_json::json;

use crate::Case;

/// Calls that filters forbid here, and one that none does.
const CALLS: [&str; 6] = [
    "call:chmod",
    "call:chroot",
    "call:sethostname",
    "call:socket",
    "call:socket-packet",
    "call:getppid",
];

/// What the program inside needs, and what a runtime does after the filter is there.
const NEEDED: &[&str] = &[
    "read",
    "write",
    "writev",
    "close",
    "fstat",
    "newfstatat",
    "statx",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "brk",
    "rt_sigaction",
    "mremap",
    "rt_sigprocmask",
    "rt_sigreturn",
    "ioctl",
    "openat",
    "open",
    "access",
    "execve",
    "exit",
    "exit_group",
    "uname",
    "getcwd",
    "readlink",
    "readlinkat",
    "getdents64",
    "getpid",
    "getppid",
    "getsid",
    "getpgid",
    "getpgrp",
    "prctl",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "getrandom",
    "fcntl",
    "poll",
    "ppoll",
    "sigaltstack",
    "futex",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlinkat",
    "sched_getaffinity",
    "gettid",
    "stat",
    "lstat",
    "fstatfs",
    "epoll_pwait",
    "nanosleep",
    "clock_nanosleep",
    "tgkill",
    "capget",
    "capset",
    "setuid",
    "setgid",
    "setgroups",
    "chdir",
    "fchdir",
    "setpriority",
    "getpriority",
    "madvise",
    "close_range",
    "epoll_ctl",
    "epoll_create1",
    "pipe2",
    "clone",
    "clone3",
    "sched_yield",
    "restart_syscall",
    "timer_settime",
    "timer_create",
    "kill",
    "faccessat2",
    "newselect",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "geteuid",
    "getuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "pwrite64",
    "pread64",
    "dup",
    "dup2",
    "dup3",
    "wait4",
    "waitid",
    "execveat",
    "seccomp",
    "eventfd2",
    "unlink",
];

/// One case for each filter.
macro_rules! filters {
    ($($name:literal $filter:tt),* $(,)?) => { vec![$(
        Case::new(concat!("seccomp: ", $name), |stage| {
            stage.linux(json!({ "seccomp": $filter })).steps(&CALLS);
        }),
    )*] };
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = filters![
        "all calls" { "defaultAction": "SCMP_ACT_ALLOW" },
        "one call with an error" {
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["chroot", "sethostname"], "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38 }],
        },
        "one call with EPERM" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "several architectures" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "an argument that is equal" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
                "args": [{ "index": 0, "value": 2, "op": "SCMP_CMP_EQ" }] }],
        },
        "a masked argument" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
                "args": [{ "index": 0, "value": 17, "valueTwo": 17, "op": "SCMP_CMP_MASKED_EQ" }] }],
        },
        "arguments that are not equal, less and greater" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                    "args": [{ "index": 0, "value": 2, "op": "SCMP_CMP_GT" },
                        { "index": 0, "value": 40, "op": "SCMP_CMP_LT" }] },
            ],
        },
        "a name that nobody knows" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["of_tomorrow", "chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "logging" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_LOG" }],
        },
        "the flag for logs" {
            "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "the flag for all threads" {
            "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "the flag for speculation" {
            "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "no flags" {
            "defaultAction": "SCMP_ACT_ALLOW", "flags": [],
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }],
        },
        "tracing without a tracer" {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_TRACE", "errnoRet": 7 }],
        },
    ];
    cases.push(Case::new("seccomp: a default error", |stage| {
        let syscalls = json!([{ "names": NEEDED, "action": "SCMP_ACT_ALLOW" }]);
        stage.linux(json!({ "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": syscalls,
        } }));
        stage.steps(&CALLS);
    }));
    cases.push(
        Case::new("seccomp: with new privileges", |stage| {
            let syscalls = json!([{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }]);
            let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls });
            stage.linux(json!({ "seccomp": filter })).steps(&CALLS);
            stage.process(json!({ "noNewPrivileges": false }));
        })
        .exec(|process| {
            process["args"] = json!(["/probe", "report", "call:chroot", "call:getppid"]);
        }),
    );
    cases.push(Case::new(
        "seccomp: with new privileges, of another user",
        |stage| {
            let syscalls = json!([{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO" }]);
            let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls });
            stage.linux(json!({ "seccomp": filter })).steps(&CALLS);
            stage
                .process(json!({ "noNewPrivileges": false, "user": { "uid": 1000, "gid": 1000 } }));
        },
    ));
    cases.push(Case::new("seccomp: kills the program", |stage| {
        let syscalls = json!([{ "names": ["chroot"], "action": "SCMP_ACT_KILL_PROCESS" }]);
        let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls });
        stage.linux(json!({ "seccomp": filter }));
    }));
    cases
}
