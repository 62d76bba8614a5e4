//! Specs that lack fields, or have ones that nothing keeps to.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::{Value, json};
use shimwright_guests::IDLE;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Output, Shim};

use crate::{end, finish, for_each_engine, linux, refused, run};

for_each_engine! {
    what_nothing_would_do_for_a_container_is_refused
    what_nothing_would_do_for_an_exec_is_refused
    a_process_has_no_capability_that_its_spec_does_not_name
    an_exec_inherits_no_capability
    a_cgroup_mount_that_is_read_only_cannot_be_written
    a_volume_shows_what_is_mounted_later_only_if_it_is_to
    what_is_masked_outside_of_proc_is_masked_for_guests_too
}

/// Who runs in a container.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Guest,
    Linux,
}

pub(super) const KINDS: [Kind; 2] = [Kind::Guest, Kind::Linux];

impl Kind {
    /// A bundle whose program says that it is ready and waits.
    pub(super) fn waiting(self, containerd: &Containerd, id: &str) -> Bundle {
        let bundle = linux::bundle(containerd, id, "wait");
        let bundle = bundle.file("/idle.wasm", IDLE.wasm(), 0o755).unwrap();
        bundle.args(self.args()).unwrap()
    }

    /// The arguments of that program.
    pub(super) fn args(self) -> &'static [&'static str] {
        match self {
            Self::Guest => &["/idle.wasm"],
            Self::Linux => &["/program", "wait"],
        }
    }

    /// A further process with that program.
    pub(super) fn process(self) -> Value {
        json!({
            "args": self.args(), "cwd": "/", "env": ["ONLY=this"],
            "user": { "uid": 0, "gid": 0 }, "capabilities": {}, "noNewPrivileges": true,
        })
    }
}

/// Starts a container whose program says that it is ready, and returns its pid.
pub(super) fn start(shim: &Shim, bundle: &mut Bundle) -> u32 {
    // That of an earlier container of the same bundle.
    let _ = fs::remove_file(
        bundle
            .image()
            .with_file_name(format!("{}.stdout", bundle.id())),
    );
    let output = bundle.stdout().unwrap();
    let pid = shim.create(bundle).unwrap();
    shim.start(bundle.id()).unwrap();
    output.wait_for("ready").unwrap();
    pid
}

/// Starts an exec of the container `a` whose program says that it is ready, and returns its pid.
fn start_exec(containerd: &Containerd, shim: &Shim, id: &str, process: &Value) -> u32 {
    let output = Output::new(&containerd.directory().join(id)).unwrap();
    let streams = [String::new(), output.path(), String::new()];
    let pid = shim
        .add_exec("a", id, process, streams)
        .unwrap()
        .start()
        .unwrap();
    output.wait_for("ready").unwrap();
    pid
}

/// Changes of a spec, by the fields that refusals name.
fn refusals() -> Vec<(&'static str, Value)> {
    let volume = |option: &str| json!({ "mounts": [{ "destination": "/v", "source": "/tmp", "options": ["rbind", option] }] });
    let own = json!([{ "type": "mount" }]);
    let twice = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "pid" }]);
    let map = json!([{ "hostID": 1000, "containerID": 0, "size": 1 }]);
    let mut changes = vec![
        ("ociVersion", json!({ "ociVersion": "2.0.0" })),
        ("windows", json!({ "windows": {} })),
        ("mounts[].options", volume("ridmap")),
        (
            "hooks.poststop",
            json!({ "hooks": { "poststop": [{ "path": "/a", "timeout": 0 }] } }),
        ),
        (
            "UTS",
            json!({ "hostname": "a", "linux": { "namespaces": own } }),
        ),
        ("user namespace", json!({ "linux": { "uidMappings": map } })),
        (
            "time namespace",
            json!({ "linux": { "timeOffsets": { "boottime": { "secs": 1 } } } }),
        ),
        (
            "linux.namespaces[].type",
            json!({ "linux": { "namespaces": twice } }),
        ),
        (
            "linux.intelRdt",
            json!({ "linux": { "intelRdt": { "closID": "a" } } }),
        ),
        (
            "linux.rootfsPropagation",
            json!({ "linux": { "rootfsPropagation": "public" } }),
        ),
        (
            "linux.personality.flags",
            json!({ "linux": { "personality": { "domain": "LINUX", "flags": ["a"] } } }),
        ),
        (
            "linux.resources.rdma",
            json!({ "linux": { "resources": { "rdma": { "a": { "hcaHandles": 1 } } } } }),
        ),
        (
            "linux.resources.unified",
            json!({ "linux": { "resources": { "unified": { "../memory.high": "1" } } } }),
        ),
    ];
    changes.extend(sysctl_refusals());
    let process = process_refusals().into_iter();
    changes.extend(process.map(|(field, process)| (field, json!({ "process": process }))));
    changes
}

/// Parameters of the node, so of every container.
fn sysctl_refusals() -> Vec<(&'static str, Value)> {
    let sysctl = |name: &str, value| json!({ "linux": { "sysctl": { name: value } } });
    let names = [
        "kernel.core_pattern",
        "kernel.hostname",
        "vm.overcommit_memory",
    ];
    let mut changes = Vec::from(names.map(|name| (name, sysctl(name, "marker"))));
    // It begins as one of the container's own would.
    changes.push((
        "net/../vm/overcommit_memory: not the name of a parameter",
        sysctl("net/../vm/overcommit_memory", "1"),
    ));
    changes
}

/// The same of a process.
fn process_refusals() -> Vec<(&'static str, Value)> {
    let limit = json!({ "type": "RLIMIT_CORE", "hard": 0, "soft": 0 });
    let mut changes = vec![
        ("process.cwd", json!({ "cwd": "tmp" })),
        (
            "process.user.username",
            json!({ "user": { "username": "nobody" } }),
        ),
        (
            "process.execCPUAffinity",
            json!({ "execCPUAffinity": { "final": "0" } }),
        ),
        (
            "process.rlimits[].type",
            json!({ "rlimits": [limit, limit] }),
        ),
        (
            "process.scheduler.nice",
            json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": 99 } }),
        ),
    ];
    // A node that has them keeps to them, and there is no such label or profile there.
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        changes.push((
            "process.selinuxLabel",
            json!({ "selinuxLabel": "a:b:c:s0" }),
        ));
    }
    if !Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        changes.push((
            "process.apparmorProfile",
            json!({ "apparmorProfile": "marker" }),
        ));
    }
    changes
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn what_nothing_would_do_for_a_container_is_refused(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let mut accepted = Value::Null;
    bundle = bundle.spec(|spec| accepted = spec.clone()).unwrap();
    for kind in KINDS {
        accepted["process"]["args"] = json!(kind.args());
        for (field, change) in refusals() {
            let mut changed = accepted.clone();
            merge(&mut changed, &change);
            bundle = bundle.spec(|spec| *spec = changed).unwrap();
            let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
            assert!(text.contains(field), "{kind:?}: {field}: {text}");
        }
        // What is left of the refusals is in nobody's way.
        bundle = bundle.spec(|spec| *spec = accepted.clone()).unwrap();
        start(&shim, &mut bundle);
        end(&shim, "a");
    }
    finish(&containerd, &shim);
}

fn what_nothing_would_do_for_an_exec_is_refused(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    start(&shim, &mut bundle);
    for kind in KINDS {
        for (field, change) in process_refusals() {
            let mut process = kind.process();
            merge(&mut process, &change);
            let added = shim.add_exec("a", "e", &process, Default::default());
            let text = match added {
                // One that is no process of the OCI runtime spec is refused at once.
                Err(error) => refused::<()>(Err(error), Code::INVALID_ARGUMENT),
                Ok(exec) => {
                    let text = refused(exec.start(), Code::INVALID_ARGUMENT);
                    exec.delete().unwrap();
                    text
                }
            };
            assert!(text.contains(field), "{kind:?}: {field}: {text}");
        }
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// The sets of capabilities of a process, each by its name.
fn capabilities(pid: u32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let sets = status.lines().filter(|line| line.starts_with("Cap"));
    sets.map(str::to_owned).collect()
}

fn a_process_has_no_capability_that_its_spec_does_not_name(engine: &str) {
    let check = |pid, what: &str| {
        let sets = capabilities(pid);
        assert_eq!(sets.len(), 5, "{sets:?}");
        for set in sets {
            assert!(set.ends_with("\t0000000000000000"), "{what}: {set}");
        }
    };
    let containerd = crate::containerd(engine);
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    for kind in KINDS {
        bundle = bundle.args(kind.args()).unwrap();
        for capabilities in [None, Some(json!({}))] {
            let set = |process: &mut Value| match capabilities.clone() {
                Some(none) => process["capabilities"] = none,
                None => drop(process.as_object_mut().unwrap().remove("capabilities")),
            };
            bundle = bundle.spec(|spec| set(&mut spec["process"])).unwrap();
            check(start(&shim, &mut bundle), &format!("{kind:?}"));
            for exec in KINDS {
                let mut process = exec.process();
                set(&mut process);
                let id = format!("{exec:?}");
                check(start_exec(&containerd, &shim, &id, &process), &id);
            }
            end(&shim, "a");
            for exec in KINDS {
                fs::remove_file(containerd.directory().join(format!("{exec:?}"))).unwrap();
            }
        }
    }
    finish(&containerd, &shim);
}

/// CVE-2022-29162 of runc and CVE-2025-27612 of youki: capabilities that are inherited.
fn an_exec_inherits_no_capability(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    start(&shim, &mut bundle);
    for kind in KINDS {
        let mut process = kind.process();
        let some = json!(["CAP_CHOWN", "CAP_NET_RAW"]);
        process["capabilities"] = json!({ "bounding": some, "effective": some, "permitted": some });
        let pid = start_exec(&containerd, &shim, &format!("{kind:?}"), &process);
        for set in capabilities(pid) {
            let is_inherited = set.starts_with("CapInh") || set.starts_with("CapAmb");
            assert!(
                !is_inherited || set.ends_with("\t0000000000000000"),
                "{set}"
            );
        }
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// Opens every file below the mount of cgroups to write to it, and writes nothing.
const OPENS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <unistd.h>
static int files;
static int visit(const char *path, const struct stat *status, int kind, struct FTW *walk) {
  (void)status; (void)walk;
  if (kind != FTW_F) return 0;
  files++;
  int file = open(path, O_WRONLY);
  if (file >= 0) { printf("writable: %s\n", path); close(file); }
  return 0;
}
int main(int argc, char **argv) {
  if (argc > 1) { puts("ready"); fflush(stdout); for (;;) pause(); }
  nftw("/sys/fs/cgroup", visit, 16, FTW_PHYS);
  puts(files ? "some files" : "no file");
  return 0;
}
"#;

fn a_cgroup_mount_that_is_read_only_cannot_be_written(engine: &str) {
    let containerd = crate::containerd(engine);
    let program = super::program(&containerd, OPENS);
    let bundle = containerd.bundle("a").unwrap();
    let mut bundle = bundle.file("/opens", &program, 0o755).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    let mount = json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options,
    });
    bundle = bundle
        .spec(|spec| spec["mounts"].as_array_mut().unwrap().push(mount))
        .unwrap();
    for own_namespace in [false, true] {
        if own_namespace {
            let namespace = json!({ "type": "cgroup" });
            bundle = bundle
                .spec(|spec| {
                    spec["linux"]["namespaces"]
                        .as_array_mut()
                        .unwrap()
                        .push(namespace)
                })
                .unwrap();
        }
        let mut first = bundle.args(&["/opens"]).unwrap();
        let _ = fs::remove_file(first.image().with_file_name("a.stdout"));
        let output = first.stdout().unwrap();
        shim.create(&first).unwrap();
        assert_eq!(run(&shim, "a"), 0);
        assert_eq!(output.text().unwrap(), "some files\n");
        shim.delete("a").unwrap();
        bundle = first.args(&["/opens", "wait"]).unwrap();
        start(&shim, &mut bundle);
        let output = Output::new(&containerd.directory().join("exec")).unwrap();
        let mut process = Kind::Linux.process();
        process["args"] = json!(["/opens"]);
        let streams = [String::new(), output.path(), String::new()];
        let exec = shim.add_exec("a", "e", &process, streams).unwrap();
        exec.start().unwrap();
        assert_eq!(exec.wait().unwrap().exit_status, 0);
        assert_eq!(output.text().unwrap(), "some files\n");
        end(&shim, "a");
        fs::remove_file(containerd.directory().join("exec")).unwrap();
    }
    finish(&containerd, &shim);
}

/// A file system in memory, whose mount other mount namespaces learn of.
pub(super) struct SharedVolume(pub(super) PathBuf);

impl SharedVolume {
    pub(super) fn new(containerd: &Containerd) -> Self {
        let path = containerd.directory().join("volume");
        fs::create_dir(&path).unwrap();
        mount_tmpfs(&path);
        rustix::mount::mount_change(&path, MountPropagationFlags::SHARED).unwrap();
        Self(path)
    }
}

impl Drop for SharedVolume {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn mount_tmpfs(place: &Path) {
    rustix::mount::mount(c"tmpfs", place, c"tmpfs", MountFlags::empty(), None).unwrap();
}

/// A mount of the node follows it unless its options say something else. A guest could reach a file
/// system of the kernel's that way, so for guests they have to say so.
fn a_volume_shows_what_is_mounted_later_only_if_it_is_to(engine: &str) {
    let containerd = crate::containerd(engine);
    let volume = SharedVolume::new(&containerd);
    let later = volume.0.join("later");
    fs::create_dir(&later).unwrap();
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    bundle = bundle.bind(&volume.0, "/volume").unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let options = ["rprivate", "rslave", "rbind"];
    for (kind, option) in KINDS
        .into_iter()
        .flat_map(|kind| options.map(|option| (kind, option)))
    {
        bundle = bundle.args(kind.args()).unwrap();
        bundle = bundle
            .spec(|spec| {
                let volume = spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
                volume["options"] = json!(["rbind", option]);
            })
            .unwrap();
        let pid = start(&shim, &mut bundle);
        mount_tmpfs(&later);
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        rustix::mount::unmount(&later, UnmountFlags::empty()).unwrap();
        assert!(mounts.contains(" /volume "), "{mounts}");
        let follows = match option {
            "rbind" => matches!(kind, Kind::Linux),
            option => option == "rslave",
        };
        let shown = mounts.contains(" /volume/later ");
        assert_eq!(shown, follows, "{kind:?} {option}: {mounts}");
        end(&shim, "a");
    }
    drop(volume);
    finish(&containerd, &shim);
}

fn what_is_masked_outside_of_proc_is_masked_for_guests_too(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = Kind::Linux.waiting(&containerd, "a");
    let bundle = bundle.file("/secret", b"marker", 0o644).unwrap();
    let bundle = bundle.file("/secrets/one", b"marker", 0o644).unwrap();
    let bundle = bundle.file("/fixed/file", b"as it was", 0o666).unwrap();
    let mut bundle = bundle
        .spec(|spec| {
            let masked = spec["linux"]["maskedPaths"].as_array_mut().unwrap();
            masked.extend([json!("/secret"), json!("/secrets")]);
            let fixed = spec["linux"]["readonlyPaths"].as_array_mut().unwrap();
            fixed.push(json!("/fixed"));
        })
        .unwrap();
    let shim = containerd.start(&bundle).unwrap();
    for kind in KINDS {
        bundle = bundle.args(kind.args()).unwrap();
        let pid = start(&shim, &mut bundle);
        let inside = |path: &str| format!("/proc/{pid}/root{path}");
        assert_eq!(fs::read(inside("/secret")).unwrap(), b"", "{kind:?}");
        assert_eq!(
            fs::read_dir(inside("/secrets")).unwrap().count(),
            0,
            "{kind:?}"
        );
        let written = fs::write(inside("/fixed/file"), b"marker");
        let error = written.unwrap_err().raw_os_error();
        assert_eq!(error, Some(libc::EROFS), "{kind:?}");
        end(&shim, "a");
    }
    finish(&containerd, &shim);
}
