//! What the process of a running guest may do and see, read from `/proc`.

use std::fs;

use shimwright_guests::IDLE;
use shimwright_testkit::{Containerd, Shim, poll};

use crate::{end, finish, for_each_engine, started};

for_each_engine! {
    the_guest_has_the_user_of_the_spec
    the_guest_can_gain_no_privileges
    the_engine_makes_only_the_system_calls_of_engines
    the_guest_has_nothing_of_the_shims_environment
    the_guest_has_no_descriptor_of_the_shims
    there_is_no_proc_in_the_container
    the_guest_is_in_the_control_groups_of_the_spec
    processes_that_wait_let_go_of_the_code_they_started_with
}

/// Runs an idle guest as an ordinary user, lets `check` look at its pid, and ends it.
fn with_guest(engine: &str, check: impl FnOnce(&Containerd, &Shim, u32)) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let mut bundle = bundle.user(1234, 5678).unwrap().overlay().unwrap();
    let output = bundle.stdout().unwrap();
    let pid = shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    check(&containerd, &shim, pid);
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// The values of a line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap()
        .split_whitespace()
        .map(ToOwned::to_owned)
        .collect()
}

/// The program's pages that are mapped into a process, in KiB.
fn mapped_code(pid: u32) -> u64 {
    status(pid, "RssFile")[0].parse().unwrap()
}

fn processes_that_wait_let_go_of_the_code_they_started_with(engine: &str) {
    with_guest(engine, |_, shim, pid| {
        let pids = [pid, shim.connect_task("a").unwrap().shim_pid];
        for (pid, before) in pids.map(|pid| (pid, mapped_code(pid))) {
            let few = poll(|| Some(mapped_code(pid)).filter(|after| after * 2 < before));
            assert!(few.is_some(), "{before} KiB, then {}", mapped_code(pid));
        }
        // It is all there again if it is needed.
        assert_eq!(shim.state("a").unwrap().pid, pid);
    });
}

fn the_guest_has_the_user_of_the_spec(engine: &str) {
    with_guest(engine, |_, _, pid| {
        assert_eq!(status(pid, "Uid"), ["1234"; 4]);
        assert_eq!(status(pid, "Gid"), ["5678"; 4]);
    });
}

fn the_guest_can_gain_no_privileges(engine: &str) {
    with_guest(engine, |_, _, pid| {
        assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status(pid, set), ["0000000000000000"], "{set}");
        }
    });
}

fn the_engine_makes_only_the_system_calls_of_engines(engine: &str) {
    with_guest(engine, |_, shim, pid| {
        // The spec of the test has no filter of its own.
        assert_eq!(status(pid, "Seccomp"), ["2"]);
        // The second one is added when the guest's code is loaded: see `forbid_new_code`.
        assert_eq!(status(pid, "Seccomp_filters"), ["2"]);
        for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let thread = thread.unwrap();
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
                // The one that lets go of memory ends soon. The first stays.
                assert_ne!(thread.file_name(), pid.to_string().as_str());
                continue;
            };
            assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        }
        let shim = shim.connect_task("a").unwrap().shim_pid;
        assert_eq!(status(shim, "Seccomp"), ["0"]);
    });
}

fn the_guest_has_nothing_of_the_shims_environment(engine: &str) {
    with_guest(engine, |containerd, _, pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environ = String::from_utf8_lossy(&environ);
        for name in [
            "TTRPC_ADDRESS",
            "GRPC_ADDRESS",
            "MAX_SHIM_VERSION",
            "SHIMWRIGHT_SERVER",
        ] {
            assert!(!environ.contains(name), "{environ}");
        }
        assert!(
            !environ.contains(&*containerd.directory().to_string_lossy()),
            "{environ}"
        );
    });
}

/// The descriptors of a process and what each is.
fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let describe = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap();
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        (number, target.to_string_lossy().into_owned())
    };
    entries.map(describe).collect()
}

fn the_guest_has_no_descriptor_of_the_shims(engine: &str) {
    with_guest(engine, |containerd, shim, pid| {
        let host = containerd.directory().to_string_lossy();
        let shims = descriptors(shim.connect_task("a").unwrap().shim_pid);
        let guests = descriptors(pid);
        let streams: Vec<_> = guests.iter().filter(|(number, _)| *number <= 2).collect();
        for (number, target) in &guests {
            // Its streams, which an engine may duplicate, are the only way out.
            if streams.iter().any(|(_, stream)| stream == target) {
                continue;
            }
            // An engine may have a pair of sockets for itself.
            let shared = shims.iter().any(|(_, other)| other == target);
            assert!(
                !(shared && target.starts_with("socket:")),
                "{number}: {guests:#?}"
            );
            assert!(!target.contains(&*host), "{number}: {guests:#?}");
            assert!(
                !target.starts_with("/run/containerd"),
                "{number}: {guests:#?}"
            );
            let writable = target.starts_with('/') && !is_read_only(pid, *number);
            assert!(!writable, "{number}: {guests:#?}");
        }
    });
}

/// Whether a descriptor is only for reading, or only for finding files below it.
fn is_read_only(pid: u32, number: u32) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .unwrap()
        .trim();
    let flags = i32::from_str_radix(flags, 8).unwrap();
    flags & libc::O_ACCMODE == libc::O_RDONLY
}

fn there_is_no_proc_in_the_container(engine: &str) {
    with_guest(engine, |_, _, pid| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(
            !mounts.lines().any(|line| line.contains(" - proc ")),
            "{mounts}"
        );
    });
}

fn the_guest_is_in_the_control_groups_of_the_spec(engine: &str) {
    with_guest(engine, |containerd, shim, pid| {
        let expected = format!("/{}/a", containerd.namespace());
        let groups = |pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let guest = groups(pid);
        assert!(
            guest.lines().any(|line| line.ends_with(&expected)),
            "{guest}"
        );
        let own = groups(shim.connect_task("a").unwrap().shim_pid);
        assert!(!own.contains(containerd.namespace()), "{own}");
    });
}
