//! The cgroups of a container.

mod limits;
mod pause;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shimwright_guests::IDLE;
use shimwright_testkit::protos::api::UpdateTaskRequest;
use shimwright_testkit::protos::protobuf::MessageField;
use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::protos::types::task::Status;
use shimwright_testkit::{Bundle, Containerd, Output, Shim};

use crate::{finish, for_each_engine};

for_each_engine! {
    groups_that_cannot_be_made_leave_none
}

/// Does what its arguments say. Static, so that it needs no root file system.
const PROGRAM: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void touch(long mebibytes) {
  for (long i = 0; i < mebibytes; i++) memset(malloc(1 << 20), 1, 1 << 20);
}
int main(int argc, char **argv) {
  if (!strcmp(argv[1], "spin")) {
    write(1, "spinning\n", 9);
    for (;;) __asm__ volatile("");
  }
  /* Each line asks for a child that touches too much. */
  if (!strcmp(argv[1], "children")) {
    char line;
    while (read(0, &line, 1) == 1) {
      int status;
      pid_t child = fork();
      if (!child) { touch(1024); _exit(0); }
      waitpid(child, &status, 0);
      write(1, WIFSIGNALED(status) ? "killed\n" : "ended\n", WIFSIGNALED(status) ? 7 : 6);
    }
  }
  return 0;
}
"#;

/// A bundle with the program, compiled by the C compiler that Rust links with.
fn program(containerd: &Containerd, what: &str) -> Bundle {
    let source = containerd.directory().join("program.c");
    let binary = containerd.directory().join("program");
    fs::write(&source, PROGRAM).unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-O1", "-static", "-o"])
        .arg(&binary)
        .arg(&source);
    assert!(compile.status().unwrap().success());
    let bundle = containerd.bundle("a").unwrap();
    let bundle = bundle.file("/program", &fs::read(binary).unwrap(), 0o755);
    bundle.unwrap().args(&["/program", what]).unwrap()
}

/// The same as a container that runs and has written this.
fn running_program(engine: &str, what: &str, written: &str) -> (Containerd, Shim, Output) {
    let containerd = crate::containerd(engine);
    let mut bundle = program(&containerd, what);
    let shim = containerd.start(&bundle).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for(written).unwrap();
    (containerd, shim, output)
}

/// Whether cgroups are of version 2 only, where all controllers share a hierarchy.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// One of two, for version 1 and version 2.
fn either<T>(version_1: T, version_2: T) -> T {
    if unified() { version_2 } else { version_1 }
}

/// A file of the container's group.
fn file(containerd: &Containerd, controller: &str, name: &str) -> PathBuf {
    let group = Path::new("/sys/fs/cgroup").join(either(controller, ""));
    group.join(containerd.namespace()).join("a").join(name)
}

fn content(containerd: &Containerd, controller: &str, name: &str) -> String {
    let path = file(containerd, controller, name);
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

/// The clock ticks a process has used (`proc_pid_stat(5)`).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn status(shim: &Shim) -> Status {
    shim.state("a").unwrap().status.unwrap()
}

pub(crate) fn update(
    shim: &Shim,
    resources: &Value,
) -> shimwright_testkit::protos::ttrpc::Result<()> {
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    let request = UpdateTaskRequest {
        id: "a".into(),
        resources: MessageField::some(Any {
            type_url: kind.into(),
            value: resources.to_string().into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    shim.update(&request).map(drop)
}

fn groups_that_cannot_be_made_leave_none(engine: &str) {
    let containerd = crate::containerd(engine);
    // Longer than a path may be, while each of those above it could be made.
    let path = format!("/{}/{}", containerd.namespace(), "x/".repeat(2100));
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = bundle
        .spec(|spec| spec["linux"]["cgroupsPath"] = json!(path))
        .unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let (_, text) = shimwright_testkit::shim::refusal(shim.create(&bundle)).unwrap();
    assert!(text.contains("File name too long"), "{text}");
    finish(&containerd, &shim);
}
