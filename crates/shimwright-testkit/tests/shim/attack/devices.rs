//! Devices of the node: nodes that a program makes or an image brings, by the first process and by
//! an exec, on cgroup v1 and v2.
//!
//! What is asked for is harmless: to read the kernel's log and an unused loop device, and number 42,
//! which the kernel keeps for examples: it has no driver, so opening it says `ENXIO` where it is
//! allowed. A refusal of the cgroup is `EPERM`.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};
use shimwright_guests::{FILES, IDLE};
use shimwright_testkit::protos::ttrpc::{Code, Result as TtrpcResult};
use shimwright_testkit::{Bundle, Containerd, Input, Output, Shim};

use crate::cgroup::{unified, update};
use crate::{end, finish, for_each_engine, refused, run};

for_each_engine! {
    a_program_opens_no_device_that_no_rule_allows
    without_rules_only_the_default_devices_are_there
    a_number_below_zero_is_any
    a_part_that_is_denied_is_denied_with_the_rest
    a_sandbox_that_is_built_in_another_way_has_the_same_devices
    an_update_changes_the_rules_at_once_or_not_at_all
    a_guest_opens_no_device_of_its_image_or_volume
    without_a_way_to_keep_to_rules_there_is_no_container
    rules_that_cannot_be_kept_to_are_named
}

/// Makes and opens what the lines of its input name: type, numbers and `r`, `w` or `b` for both.
const PROGRAM: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
int main(void) {
  char type, how;
  unsigned major, minor;
  while (scanf(" %c %u %u %c", &type, &major, &minor, &how) == 4) {
    char path[64];
    int flags = how == 'r' ? O_RDONLY : how == 'w' ? O_WRONLY : O_RDWR;
    snprintf(path, sizeof path, "/dev/node-%d", getpid());
    unlink(path);
    mode_t mode = (type == 'b' ? S_IFBLK : S_IFCHR) | 0666;
    int made = mknod(path, mode, makedev(major, minor)) ? errno : 0;
    int file = made ? -1 : open(path, flags | O_NONBLOCK);
    int opened = file < 0 ? errno : 0;
    if (file >= 0) close(file);
    unlink(path);
    printf("%c %u:%u %c: %d %d\n", type, major, minor, how, made, opened);
    fflush(stdout);
  }
  return 0;
}
"#;

/// Devices of the node, of which a container has none.
const FOREIGN: [&str; 5] = ["c 1 11 r", "c 1 1 r", "c 1 4 r", "b 7 0 r", "c 42 0 b"];

/// Devices that every container has.
const DEFAULT: [&str; 7] = [
    "c 1 3 b", "c 1 5 b", "c 1 7 b", "c 1 8 r", "c 1 9 r", "c 5 0 b", "c 5 2 b",
];

/// A process that tries to open devices.
struct Probe {
    input: Input,
    output: Output,
    asked: usize,
}

impl Probe {
    /// The error of opening what a line names; 0 if it was opened.
    #[track_caller]
    fn open(&mut self, line: &str) -> i32 {
        self.input.write(format!("{line}\n").as_bytes()).unwrap();
        self.asked += 1;
        let answer = self.output.find(|text, _| {
            let text = String::from_utf8_lossy(text).into_owned();
            let complete = text.split_inclusive('\n').nth(self.asked - 1);
            complete
                .filter(|line| line.ends_with('\n'))
                .map(ToOwned::to_owned)
        });
        let answer = answer.unwrap();
        let (_, errors) = answer.trim_end().rsplit_once(": ").unwrap();
        let (made, opened) = errors.split_once(' ').unwrap();
        // Making a node is allowed, as with runc: it is opening that counts.
        assert_eq!(made, "0", "{answer}");
        opened.parse().unwrap()
    }

    /// What `c 42:0` and the like say when they are allowed, as nothing drives them.
    #[track_caller]
    fn is_allowed(&mut self, line: &str) -> bool {
        match self.open(line) {
            0 | libc::ENXIO | libc::ENODEV => true,
            libc::EPERM => false,
            other => panic!("{line}: {}", std::io::Error::from_raw_os_error(other)),
        }
    }

    #[track_caller]
    fn check(&mut self) {
        for line in FOREIGN {
            assert!(!self.is_allowed(line), "{line} is allowed");
        }
        for line in DEFAULT {
            assert!(self.is_allowed(line), "{line} is denied");
        }
    }
}

/// A container whose first process is a [`Probe`], with all that `ctr run` gives it but a limit of
/// the processor, which not every cgroup v2 has.
struct Container {
    containerd: Containerd,
    shim: Shim,
    first: Probe,
    execs: usize,
}

impl Container {
    fn new(engine: &str, change: impl FnOnce(&mut Value)) -> Self {
        let containerd = crate::containerd(engine);
        let mut bundle = bundle(&containerd, change);
        let (input, output) = (bundle.stdin().unwrap(), bundle.stdout().unwrap());
        let shim = containerd.start(&bundle).unwrap();
        shim.create(&bundle).unwrap();
        shim.start("a").unwrap();
        let first = Probe {
            input,
            output,
            asked: 0,
        };
        Self {
            containerd,
            shim,
            first,
            execs: 0,
        }
    }

    /// Has the first process and a new exec try this.
    fn each(&mut self, try_it: impl Fn(&mut Probe)) {
        try_it(&mut self.first);
        self.execs += 1;
        let name = format!("exec{}", self.execs);
        let path = |end: &str| self.containerd.directory().join(format!("{name}.{end}"));
        let mut probe = Probe {
            input: Input::new(&path("in")).unwrap(),
            output: Output::new(&path("out")).unwrap(),
            asked: 0,
        };
        let streams = [probe.input.path(), probe.output.path(), String::new()];
        let process = json!({
            "args": ["/attack"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "capabilities": capabilities(),
        });
        let exec = self.shim.add_exec("a", &name, &process, streams).unwrap();
        exec.start().unwrap();
        try_it(&mut probe);
        exec.kill(libc::SIGKILL).unwrap();
        exec.wait().unwrap();
        exec.delete().unwrap();
    }

    fn update(&self, resources: &Value) -> TtrpcResult<()> {
        update(&self.shim, resources)
    }

    fn end(self) {
        end(&self.shim, "a");
        finish(&self.containerd, &self.shim);
    }
}

/// Those that matter of the default ones, and to make nodes is one of these.
fn capabilities() -> Value {
    let set = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_CHOWN"]);
    json!({ "bounding": set, "effective": set, "permitted": set })
}

/// A bundle with the program and a changed spec.
fn bundle(containerd: &Containerd, change: impl FnOnce(&mut Value)) -> Bundle {
    let program = super::program(containerd, PROGRAM);
    let bundle = containerd.bundle("a").unwrap();
    let bundle = bundle.file("/attack", &program, 0o755).unwrap();
    let bundle = bundle.args(&["/attack"]).unwrap();
    let bundle = bundle.spec(|spec| {
        without_limits(spec);
        change(spec);
    });
    bundle.unwrap()
}

fn without_limits(spec: &mut Value) {
    spec["linux"]["resources"]
        .as_object_mut()
        .unwrap()
        .remove("cpu");
}

/// Replaces the device rules of a spec.
fn rules(rules: Value) -> impl FnOnce(&mut Value) {
    |spec| spec["linux"]["resources"]["devices"] = rules
}

/// All is denied but the default devices and what these rules say.
fn and(more: &[Value]) -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend_from_slice(more);
    Value::from(rules)
}

fn a_program_opens_no_device_that_no_rule_allows(engine: &str) {
    let mut container = Container::new(engine, |_| ());
    container.each(Probe::check);
    container.end();
}

fn without_rules_only_the_default_devices_are_there(engine: &str) {
    let changes: [fn(&mut Value); 3] = [
        |spec| drop(spec["linux"].as_object_mut().unwrap().remove("resources")),
        |spec| spec["linux"]["resources"] = json!({}),
        |spec| spec["linux"]["resources"] = json!({ "devices": [] }),
    ];
    for change in changes {
        let mut container = Container::new(engine, change);
        container.each(|probe| {
            probe.check();
            assert!(!probe.is_allowed("c 5 1 w"), "the node's console");
        });
        container.end();
    }
}

fn a_number_below_zero_is_any(engine: &str) {
    // As Docker sends `--device-cgroup-rule "c 42:* rw"`, and as the spec has it.
    for minor in [json!(-1), Value::Null] {
        let rule =
            json!({ "allow": true, "type": "c", "major": 42, "minor": minor, "access": "rw" });
        let mut container = Container::new(engine, rules(and(&[rule])));
        container.each(|probe| {
            assert!(probe.is_allowed("c 42 0 b") && probe.is_allowed("c 42 77 r"));
            assert!(!probe.is_allowed("c 43 0 r") && !probe.is_allowed("b 42 0 r"));
            assert!(!probe.is_allowed("c 1 11 r"));
        });
        container.end();
    }
}

fn a_part_that_is_denied_is_denied_with_the_rest(engine: &str) {
    let all_but = json!([
        { "allow": true, "access": "rwm" },
        { "allow": false, "type": "c", "major": 42, "minor": 0, "access": "w" },
    ]);
    let mut container = Container::new(engine, rules(all_but));
    container.each(|probe| {
        assert!(probe.is_allowed("c 42 0 r") && probe.is_allowed("c 42 1 b"));
        assert!(!probe.is_allowed("c 42 0 w") && !probe.is_allowed("c 42 0 b"));
    });
    container.end();
    let reading = json!({ "allow": true, "type": "c", "major": 42, "minor": 0, "access": "r" });
    let mut container = Container::new(engine, rules(and(&[reading])));
    container.each(|probe| {
        assert!(probe.is_allowed("c 42 0 r"));
        assert!(!probe.is_allowed("c 42 0 w") && !probe.is_allowed("c 42 0 b"));
    });
    container.end();
}

fn a_sandbox_that_is_built_in_another_way_has_the_same_devices(engine: &str) {
    // libcontainer's own builder makes namespaces of this kind.
    let mut container = Container::new(engine, |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "time" }));
        let rule = json!({ "allow": true, "type": "c", "major": 42, "minor": -1, "access": "rw" });
        rules(and(&[rule]))(spec);
    });
    container.each(|probe| {
        assert!(probe.is_allowed("c 42 0 b") && probe.is_allowed("c 1 3 b"));
        for line in ["c 1 11 r", "b 7 0 r", "c 5 1 w"] {
            assert!(!probe.is_allowed(line), "{line} is allowed");
        }
    });
    container.end();
}

fn an_update_changes_the_rules_at_once_or_not_at_all(engine: &str) {
    let mut container = Container::new(engine, |_| ());
    let allowed = |container: &mut Container, expected: bool| {
        container.each(|probe| {
            assert_eq!(probe.is_allowed("c 42 0 b"), expected);
            assert!(!probe.is_allowed("c 1 11 r") && probe.is_allowed("c 1 3 b"));
        });
    };
    let rule = json!({ "allow": true, "type": "c", "major": 42, "minor": 0, "access": "rw" });
    allowed(&mut container, false);
    container
        .update(&json!({ "devices": and(std::slice::from_ref(&rule)) }))
        .unwrap();
    allowed(&mut container, true);
    // What says nothing about devices changes none.
    container.update(&json!({})).unwrap();
    container.update(&json!({ "devices": [] })).unwrap();
    allowed(&mut container, true);
    // Nor does what cannot be done, wherever it fails.
    let bad_rule = json!({ "allow": false, "type": "c", "access": "rw", "major": -5 });
    let text = refused(
        container.update(&json!({ "devices": [bad_rule] })),
        Code::INVALID_ARGUMENT,
    );
    assert!(text.contains("resources.devices[0]: major: -5"), "{text}");
    let bad_limit = json!({ "devices": and(&[]), "cpu": { "shares": 1 } });
    refused(container.update(&bad_limit), Code::INVALID_ARGUMENT);
    allowed(&mut container, true);
    container.update(&json!({ "devices": and(&[]) })).unwrap();
    allowed(&mut container, false);
    // The same again, and back.
    container.update(&json!({ "devices": and(&[]) })).unwrap();
    container
        .update(&json!({ "devices": and(&[rule]) }))
        .unwrap();
    allowed(&mut container, true);
    container.end();
}

/// A file system where nodes are devices, which not every `/dev/shm` is.
struct Volume(PathBuf);

impl Volume {
    fn new(containerd: &Containerd) -> Self {
        let directory = containerd.directory().join("volume");
        std::fs::create_dir(&directory).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &directory, "tmpfs", flags, None).unwrap();
        Self(directory)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Makes a node of an unused loop device, which everybody may read.
fn make_node(path: &Path) {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, path, FileType::BlockDevice, mode, makedev(7, 0)).unwrap();
}

/// A refusal of the cgroup or of a mount.
#[track_caller]
fn check_error(text: &str) {
    let is_refused = ["Operation not permitted", "Permission denied"]
        .iter()
        .any(|error| text.contains(&format!("open in.txt: {error}")));
    assert!(is_refused, "{text}");
}

fn a_guest_opens_no_device_of_its_image_or_volume(engine: &str) {
    for in_volume in [false, true] {
        for by_exec in [false, true] {
            let containerd = crate::containerd(engine);
            let volume = Volume::new(&containerd);
            let bundle = containerd.bundle("a").unwrap();
            let guest = if by_exec { IDLE } else { FILES };
            let bundle = bundle.guest(guest).unwrap();
            let bundle = bundle.file("/files.wasm", FILES.wasm(), 0o755).unwrap();
            let bundle = bundle.spec(without_limits).unwrap();
            let mut bundle = if in_volume {
                make_node(&volume.0.join("in.txt"));
                bundle.bind(&volume.0, "/data").unwrap()
            } else {
                let data = bundle.image().join("data");
                std::fs::create_dir(&data).unwrap();
                make_node(&data.join("in.txt"));
                bundle
            };
            let (output, error) = (bundle.stdout().unwrap(), bundle.stderr().unwrap());
            let shim = containerd.start(&bundle).unwrap();
            shim.create(&bundle).unwrap();
            if by_exec {
                shim.start("a").unwrap();
                output.wait_for("ready").unwrap();
                let error = Output::new(&containerd.directory().join("exec.err")).unwrap();
                let process = json!({
                    "args": ["/files.wasm"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
                    "capabilities": capabilities(),
                });
                let streams = [String::new(), String::new(), error.path()];
                let exec = shim.add_exec("a", "e", &process, streams).unwrap();
                exec.start().unwrap();
                assert_eq!(exec.wait().unwrap().exit_status, 1);
                check_error(&error.text().unwrap());
                exec.delete().unwrap();
                end(&shim, "a");
            } else {
                assert_eq!(run(&shim, "a"), 1);
                check_error(&error.text().unwrap());
                shim.delete("a").unwrap();
            }
            drop(volume);
            finish(&containerd, &shim);
        }
    }
}

/// Attaches a program to the cgroup that is its argument, so that none can be below.
const ALONE: &str = r#"
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct bpf_insn allow[] = {
    { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
    { .code = BPF_JMP | BPF_EXIT },
  };
  union bpf_attr load, attach;
  memset(&load, 0, sizeof load);
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insns = (unsigned long)allow;
  load.insn_cnt = 2;
  load.license = (unsigned long)"Apache-2.0";
  int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
  if (program < 0) return perror("load"), 1;
  memset(&attach, 0, sizeof attach);
  attach.target_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
  attach.attach_bpf_fd = program;
  attach.attach_type = BPF_CGROUP_DEVICE;
  if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach)) return perror("attach"), 1;
  return 0;
}
"#;

/// Has the cgroup above that of a container refuse rules of its own below.
fn forbid_rules(containerd: &Containerd) {
    let hierarchy = if unified() { "" } else { "devices" };
    let group = Path::new("/sys/fs/cgroup").join(hierarchy);
    let group = group.join(containerd.namespace());
    std::fs::create_dir_all(&group).unwrap();
    if unified() {
        let program = containerd.directory().join("alone");
        std::fs::write(&program, super::program(containerd, ALONE)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let mut command = std::process::Command::new(program);
        assert!(command.arg(&group).status().unwrap().success());
    } else {
        std::fs::write(group.join("devices.deny"), "a").unwrap();
    }
}

fn without_a_way_to_keep_to_rules_there_is_no_container(engine: &str) {
    let containerd = crate::containerd(engine);
    forbid_rules(&containerd);
    let program = bundle(&containerd, |_| ());
    let shim = containerd.start(&program).unwrap();
    let guest = containerd.bundle("b").unwrap().guest(IDLE).unwrap();
    let guest = guest.spec(without_limits).unwrap();
    for bundle in [&program, &guest] {
        let shim = containerd.start(bundle).unwrap();
        let (_, text) = shimwright_testkit::shim::refusal(shim.create(bundle)).unwrap();
        assert!(
            text.contains("cannot limit the container's devices"),
            "{text}"
        );
        assert!(text.contains("Operation not permitted"), "{text}");
        shim.shutdown();
    }
    finish(&containerd, &shim);
}

fn rules_that_cannot_be_kept_to_are_named(engine: &str) {
    let containerd = crate::containerd(engine);
    let reading = json!({ "allow": true, "type": "c", "access": "r" });
    let hole = json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let bundle = bundle(&containerd, rules(and(&[reading, hole])));
    let shim = containerd.start(&bundle).unwrap();
    let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    assert!(text.contains("resources.devices[2]: "), "{text}");
    let bundle = bundle
        .spec(rules(json!([{ "allow": true, "type": "c", "major": 42 }])))
        .unwrap();
    let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    assert!(text.contains("access is empty"), "{text}");
    finish(&containerd, &shim);
}
