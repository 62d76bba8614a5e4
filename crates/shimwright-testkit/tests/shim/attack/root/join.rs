//! A guest that joins a Linux program, and the keys of containers.

use std::fs::{self, File};
use std::path::Path;

use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::{Containerd, Shim};

use super::super::program;
use crate::exec::{self, Container};
use crate::{end, finish, for_each_engine, linux, run};

for_each_engine! {
    a_guest_that_joins_a_linux_program_has_neither_proc_nor_sys
    a_guest_that_joins_a_linux_program_keeps_to_the_limits_of_the_node
    containers_do_not_share_their_keys
}

/// The types of the file systems that a process sees, and where.
fn mounts(pid: u32) -> Vec<(String, String)> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ").unwrap();
        let place = before.split(' ').nth(4).unwrap();
        (
            after.split(' ').next().unwrap().to_owned(),
            place.to_owned(),
        )
    };
    table.lines().map(parse).collect()
}

/// A Linux program with a volume, that a guest has joined which waits.
fn joined(engine: &str, config: &str) -> (Container, u32) {
    let containerd = crate::containerd(engine);
    containerd.configure(config).unwrap();
    let volume = containerd.directory().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("in"), "text").unwrap();
    let bundle = linux::bundle(&containerd, "a", "wait")
        .bind(&volume, "/volume")
        .unwrap();
    let container = exec::running(containerd, bundle);
    let pid = container.join_idle();
    (container, pid)
}

fn a_guest_that_joins_a_linux_program_has_neither_proc_nor_sys(engine: &str) {
    let (container, pid) = joined(engine, "");
    let kernels = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"];
    let has_one = |pid| {
        mounts(pid)
            .iter()
            .any(|(kind, _)| kernels.contains(&&**kind))
    };
    assert!(has_one(container.pid), "{:#?}", mounts(container.pid));
    assert!(!has_one(pid), "{:#?}", mounts(pid));
    let seen = |path: &str| Path::new(&format!("/proc/{pid}/root{path}")).exists();
    assert!(!seen("/proc/self") && !seen("/sys/kernel"));
    assert!(seen("/volume/in") && seen("/program") && seen("/dev/null"));
    let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(namespace(pid), namespace(container.pid));
    container.end();
}

fn a_guest_that_joins_a_linux_program_keeps_to_the_limits_of_the_node(engine: &str) {
    let (container, pid) = joined(engine, "[limits]\nrootfs = 'none'\nnetwork = 'none'\n");
    let seen = |path: &str| Path::new(&format!("/proc/{pid}/root{path}")).exists();
    assert!(seen("/volume/in") && !seen("/program") && !seen("/idle.wasm"));
    let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(namespace(pid), namespace(container.pid));
    let created = File::create(format!("/proc/{pid}/root/new"));
    assert_eq!(created.unwrap_err().raw_os_error(), Some(libc::EROFS));
    container.end();
    let (container, pid) = joined(engine, "[limits]\nrootfs = 'read-only'\n");
    let created = File::create(format!("/proc/{pid}/root/new"));
    assert_eq!(created.unwrap_err().raw_os_error(), Some(libc::EROFS));
    File::create(format!("/proc/{}/root/new", container.pid)).unwrap();
    container.end();
}

/// Prints the number of its session keyring.
const KEYS: &str = r#"
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
  printf("%ld\n", syscall(SYS_keyctl, 0, -3, 0));
  return 0;
}
"#;

/// The session keyring of a container, and that of a process which joins it.
fn keyrings(
    containerd: &Containerd,
    shim: &mut Option<Shim>,
    id: &str,
    options: Option<Any>,
) -> [String; 2] {
    let keys = program(containerd, KEYS);
    let bundle = linux::bundle(containerd, id, "wait")
        .file("/keys", &keys, 0o755)
        .unwrap();
    let mut bundle = bundle.args(&["/keys"]).unwrap();
    let output = bundle.stdout().unwrap();
    let shim = shim.get_or_insert_with(|| containerd.start(&bundle).unwrap());
    let mut request = bundle.request();
    request.options = options.clone().into();
    shim.create_task(&request).unwrap();
    assert_eq!(run(shim, id), 0);
    shim.delete(id).unwrap();
    let first = output.text().unwrap();

    let id = format!("{id}-exec");
    let bundle = linux::bundle(containerd, &id, "wait")
        .file("/keys", &keys, 0o755)
        .unwrap();
    let mut request = bundle.request();
    request.options = options.into();
    shim.create_task(&request).unwrap();
    shim.start(&id).unwrap();
    let output =
        shimwright_testkit::Output::new(&containerd.directory().join(format!("{id}.keys")))
            .unwrap();
    let streams = [String::new(), output.path(), String::new()];
    let exec = shim
        .add_exec(&id, "e", &exec::process(&["/keys"]), streams)
        .unwrap();
    exec.start().unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 0);
    exec.delete().unwrap();
    end(shim, &id);
    [first, output.text().unwrap()]
}

fn containers_do_not_share_their_keys(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut shim = None;
    let one = keyrings(&containerd, &mut shim, "a", None);
    let other = keyrings(&containerd, &mut shim, "b", None);
    let mut all =
        [&one[0], &one[1], &other[0], &other[1]].map(|text| text.trim().parse::<i64>().unwrap());
    assert!(all.iter().all(|&number| number > 0), "{all:?}");
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    let shared = crate::options::cri("NoNewKeyring = true\n");
    let [first, second] = keyrings(&containerd, &mut shim, "c", Some(shared));
    assert_eq!(first, second);
    finish(&containerd, &shim.unwrap());
}
