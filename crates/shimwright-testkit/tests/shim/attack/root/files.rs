//! What a process in a container has of the node: files, privileges, a core.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde_json::json;
use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::Containerd;

use super::super::program;
use crate::exec;
use crate::{end, finish, for_each_engine, linux, run};

for_each_engine! {
    a_container_that_waits_has_no_way_to_the_node_and_no_privilege
    no_process_in_a_container_has_a_file_of_the_node_that_can_be_written
    a_script_cannot_have_the_shim_for_its_interpreter_and_write_to_it
    an_absent_set_of_capabilities_is_empty
    a_process_of_a_guest_leaves_no_core
}

/// What is behind each descriptor of a process above its streams.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    let above = |path: &std::path::PathBuf| {
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        number > 2
    };
    let target = |path: std::path::PathBuf| fs::read_link(path).unwrap();
    let targets = entries.filter(above).map(target);
    targets
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

fn a_container_that_waits_has_no_way_to_the_node_and_no_privilege(engine: &str) {
    for is_guest in [true, false] {
        let containerd = crate::containerd(engine);
        let bundle = if is_guest {
            containerd.bundle("a").unwrap().guest(HELLO).unwrap()
        } else {
            linux::bundle(&containerd, "a", "env")
        };
        let bundle = bundle
            .spec(|spec| spec["process"]["capabilities"] = json!({}))
            .unwrap();
        let shim = containerd.start(&bundle).unwrap();
        let pid = shim.create(&bundle).unwrap();
        for set in SETS {
            assert_eq!(status(pid, set), "0000000000000000", "{set}");
        }
        for target in descriptors(pid) {
            let kept = is_guest && is_needed_to_execute(&target);
            let harmless = target.starts_with("socket:") || target.starts_with("pipe:");
            assert!(kept || harmless, "{target} of {:#?}", descriptors(pid));
        }
        check_hidden(pid);
        assert_eq!(run(&shim, "a"), if is_guest { 0 } else { 7 });
        shim.delete("a").unwrap();
        finish(&containerd, &shim);
    }
}

/// The program, and what it is told and loads: that they cannot be written is another test.
fn is_needed_to_execute(target: &str) -> bool {
    let name = target.rsplit('/').next().unwrap_or_default();
    target.starts_with("/memfd:")
        || name.starts_with("containerd-shim-")
        // An artifact of the cache, and the directory of an engine's libraries.
        || (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || target == "/"
}

/// Only a process with `CAP_SYS_PTRACE` may look into it, although its user is the same
/// (`PR_SET_DUMPABLE`): the kernel then has root own what shows its insides.
fn check_hidden(pid: u32) {
    assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
}

/// Checks that nothing can be changed through a file that a process in a container leads to: neither
/// its mode, which is set to what it is, nor its content, which is opened only.
#[track_caller]
fn check_cannot_be_written(link: &str) {
    let found = rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let mode = fs::metadata(&path).unwrap().permissions();
    let errno = |error: std::io::Error| error.raw_os_error();
    let changed = fs::set_permissions(&path, mode).map_err(errno);
    assert_eq!(changed, Err(Some(libc::EROFS)), "mode of {link}");
    if fs::metadata(&path).unwrap().is_dir() {
        let made = fs::create_dir(Path::new(&path).join("attack")).map_err(errno);
        assert_eq!(made, Err(Some(libc::EROFS)), "{link}");
        return;
    }
    let opened = File::options()
        .write(true)
        .open(&path)
        .map(drop)
        .map_err(errno);
    // What is being executed is busy before anything else is looked at.
    let refused = [Err(Some(libc::EROFS)), Err(Some(libc::ETXTBSY))];
    assert!(refused.contains(&opened), "{link}: {opened:?}");
}

#[track_caller]
fn check_protected(pid: u32) {
    check_cannot_be_written(&format!("/proc/{pid}/exe"));
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap();
        let target = target.to_string_lossy();
        let stat = fs::metadata(&path).unwrap();
        // Streams are the container's own; what is in memory is nobody else's.
        let is_of_the_node = target.starts_with('/') && !target.starts_with("/memfd:");
        if is_of_the_node && (stat.is_file() || stat.is_dir()) {
            let same_as_root =
                |other: fs::Metadata| (other.dev(), other.ino()) == (stat.dev(), stat.ino());
            if stat.is_dir() && same_as_root(fs::metadata(format!("/proc/{pid}/root")).unwrap()) {
                continue;
            }
            check_cannot_be_written(&path.to_string_lossy());
        }
    }
}

fn no_process_in_a_container_has_a_file_of_the_node_that_can_be_written(engine: &str) {
    // The shim process, whose forks enter containers; a container that waits; one that runs.
    let containerd = crate::containerd(engine);
    let mut bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    check_cannot_be_written(&format!("/proc/{}/exe", shim_pid(&containerd)));
    let pid = shim.create(&bundle).unwrap();
    check_protected(pid);
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    check_protected(pid);
    check_hidden(pid);
    end(&shim, "a");
    finish(&containerd, &shim);
    // A Linux program that waits is a fork of the shim too; a guest that joins one.
    let containerd = crate::containerd(engine);
    let bundle = linux::bundle(&containerd, "a", "wait");
    let shim = containerd.start(&bundle).unwrap();
    check_protected(shim.create(&bundle).unwrap());
    end(&shim, "a");
    finish(&containerd, &shim);
    let container = exec::program(engine);
    let pid = container.join_idle();
    check_protected(pid);
    check_hidden(pid);
    container.end();
}

fn shim_pid(containerd: &Containerd) -> i32 {
    containerd.snapshot().shims()[0]
}

/// Looks for a process that is executed from a shim, and tries to change its mode to what it is.
const WATCHER: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
  write(1, "ready\n", 6);
  for (;;) {
    DIR *all = opendir("/proc");
    for (struct dirent *one; all && (one = readdir(all));) {
      char path[300], name[300];
      if (!atoi(one->d_name)) continue;
      snprintf(path, sizeof path, "/proc/%s/exe", one->d_name);
      ssize_t length = readlink(path, name, sizeof name - 1);
      if (length <= 0) continue;
      name[length] = 0;
      if (!strstr(name, "containerd-shim")) continue;
      int file = open(path, O_RDONLY);
      if (file < 0) continue;
      struct stat found;
      fstat(file, &found);
      int changed = fchmod(file, found.st_mode & 07777) ? errno : 0;
      snprintf(path, sizeof path, "/proc/self/fd/%d", file);
      int writable = open(path, O_WRONLY);
      printf("seen %d %d\n", changed, writable < 0 ? errno : 0);
      fflush(stdout);
      for (;;) pause();
    }
    if (all) closedir(all);
  }
}
"#;

fn a_script_cannot_have_the_shim_for_its_interpreter_and_write_to_it(engine: &str) {
    for attack in ["/script", "/idle.wasm"] {
        let containerd = crate::containerd(engine);
        let watcher = program(&containerd, WATCHER);
        let bundle = containerd.bundle("a").unwrap();
        let bundle = bundle
            .file("/watcher", &watcher, 0o755)
            .unwrap()
            .file("/script", b"#!/proc/self/exe\n", 0o755)
            .unwrap()
            .args(&["/watcher"])
            .unwrap()
            .spec(|spec| {
                // The strongest that a container can be without being privileged.
                for set in ["bounding", "effective", "permitted"] {
                    let all = spec["process"]["capabilities"][set].as_array_mut().unwrap();
                    all.push(json!("CAP_SYS_PTRACE"));
                }
            })
            .unwrap();
        let container = exec::running(containerd, bundle);
        let mut attempts = 0;
        let seen = loop {
            let exec = container.add(&format!("e{attempts}"), &[attack]);
            // A script whose interpreter is no program for it may be refused.
            let _ = exec.start();
            attempts += 1;
            let text = container.written();
            if let Some(seen) = text.lines().find(|line| line.starts_with("seen")) {
                break seen.to_owned();
            }
            assert!(
                attempts < 200,
                "the watcher has seen no process of the shim"
            );
        };
        // It is busy as long as it is executed.
        let refused =
            [libc::EROFS, libc::ETXTBSY].map(|errno| format!("seen {} {errno}", libc::EROFS));
        assert!(refused.contains(&seen), "{attack}: {seen}");
        container.end();
    }
}

fn an_absent_set_of_capabilities_is_empty(engine: &str) {
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 2] = [
        |process| drop(process.as_object_mut().unwrap().remove("capabilities")),
        |process| process["capabilities"] = json!({ "bounding": [] }),
    ];
    for change in changes {
        let containerd = crate::containerd(engine);
        let bundle = linux::bundle(&containerd, "a", "wait");
        let bundle = bundle.spec(|spec| change(&mut spec["process"])).unwrap();
        let container = exec::running(containerd, bundle);
        let mut process = exec::process(&["/program", "wait"]);
        change(&mut process);
        let exec = container
            .shim
            .add_exec("a", "e", &process, Default::default())
            .unwrap();
        let pids = [container.pid, exec.start().unwrap()];
        for (pid, set) in pids.iter().flat_map(|pid| SETS.map(|set| (*pid, set))) {
            assert_eq!(status(pid, set), "0000000000000000", "{set}");
        }
        container.end();
    }
}

fn a_process_of_a_guest_leaves_no_core(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = bundle.spec(|spec| {
        let limit = json!({ "type": "RLIMIT_CORE", "soft": 1 << 30, "hard": 1 << 30 });
        spec["process"]["rlimits"]
            .as_array_mut()
            .unwrap()
            .push(limit);
    });
    let container = exec::running(containerd, bundle.unwrap());
    let limits = fs::read_to_string(format!("/proc/{}/limits", container.pid)).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    container.end();
}
