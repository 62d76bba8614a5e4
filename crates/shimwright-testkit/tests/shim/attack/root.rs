//! An image's root: its links, libraries and files, and what runs before its program does.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde_json::json;
use shimwright_guests::{ENV, HELLO, IDLE};
use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Shim};

use super::{compiled, program};
use crate::exec::{self, Container};
use crate::{end, finish, for_each_engine, linux, refused, run};

for_each_engine! {
    no_library_of_an_image_runs_before_its_program
    the_home_is_that_of_the_images_passwd
    a_passwd_that_is_no_ordinary_file_is_not_opened
    a_container_that_waits_has_no_way_to_the_node_and_no_privilege
    no_process_in_a_container_has_a_file_of_the_node_that_can_be_written
    a_script_cannot_have_the_shim_for_its_interpreter_and_write_to_it
    a_guest_that_joins_a_linux_program_has_neither_proc_nor_sys
    a_guest_that_joins_a_linux_program_keeps_to_the_limits_of_the_node
    containers_do_not_share_their_keys
    a_read_only_mount_of_cgroups_cannot_be_written
    a_link_in_place_of_dev_is_refused
    a_device_in_place_of_the_entrypoint_is_not_opened
    a_device_of_an_image_cannot_be_opened_beside_a_guest
    a_volume_with_the_kernels_files_is_refused_for_guests
    an_absent_set_of_capabilities_is_empty
    a_process_of_a_guest_leaves_no_core
}

/// Marks that it was loaded, without any library of its own: in the root, and in the shim's place.
const TELLTALE: &str = r#"
static long call(long number, long a, long b, long c, long d) {
#ifdef __x86_64__
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  return result;
#else
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b,
                x2 __asm__("x2") = c, x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
#endif
}
#ifdef __x86_64__
#define OPENAT 257
#else
#define OPENAT 56
#endif
__attribute__((constructor)) static void loaded(void) {
  call(OPENAT, -100, (long)"/loaded", 0102, 0644);
}
"#;

/// Where a C library looks for libraries.
const LIBRARY_DIRECTORIES: [&str; 6] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
];

/// An image whose every name service, and whatever else a C library loads, is a library that tells.
fn with_telltales(containerd: &Containerd, mut bundle: Bundle) -> Bundle {
    let library = compiled(containerd, TELLTALE, &["-shared", "-fPIC", "-nostdlib"]);
    for directory in LIBRARY_DIRECTORIES {
        for name in [
            "libnss_telltale.so.2",
            "libnss_files.so.2",
            "libnss_compat.so.2",
            "libnss_systemd.so.2",
            "libgcc_s.so.1",
            "libidn2.so.0",
            "gconv/UTF-16.so",
        ] {
            let path = format!("{directory}/{name}");
            bundle = bundle.file(&path, &library, 0o755).unwrap();
        }
    }
    let databases = [
        "passwd",
        "group",
        "initgroups",
        "hosts",
        "services",
        "networks",
        "shadow",
    ];
    let services = databases.map(|name| format!("{name}: telltale files\n"));
    bundle
        .file("/etc/nsswitch.conf", services.concat().as_bytes(), 0o644)
        .unwrap()
}

fn no_library_of_an_image_runs_before_its_program(engine: &str) {
    let containerd = crate::containerd(engine);
    let guest = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = with_telltales(&containerd, guest).user(4321, 4321).unwrap();
    let container = exec::running(containerd, bundle);
    container.run("program", &["/program", "env"]);
    container.run("guest", &["/hello.wasm"]);
    assert!(!container.image().join("loaded").exists());
    container.end();

    let containerd = crate::containerd(engine);
    let program = linux::bundle(&containerd, "a", "wait");
    let bundle = with_telltales(&containerd, program);
    let container = exec::running(containerd, bundle);
    container.run("program", &["/program", "env"]);
    container.run("guest", &["/hello.wasm"]);
    assert!(!container.image().join("loaded").exists());
    container.end();
}

/// The first process is `create`d with this image, and says what it has for `HOME`.
fn homes(engine: &str, image: impl Fn(Bundle) -> Bundle) -> Vec<String> {
    let home = |text: String| {
        let found = text.lines().find_map(|line| line.strip_prefix("HOME="));
        found.unwrap_or("none").to_owned()
    };
    let mut found = Vec::new();
    for is_guest in [true, false] {
        let containerd = crate::containerd(engine);
        let bundle = if is_guest {
            let bundle = containerd.bundle("a").unwrap().guest(ENV).unwrap();
            bundle.env(&["PATH=/bin"]).unwrap()
        } else {
            linux::bundle(&containerd, "a", "env")
        };
        let mut bundle = image(bundle);
        let output = bundle.stdout().unwrap();
        let shim = containerd.start(&bundle).unwrap();
        shim.create(&bundle).unwrap();
        run(&shim, "a");
        found.push(home(output.text().unwrap()));
        shim.delete("a").unwrap();
        finish(&containerd, &shim);
    }
    let containerd = crate::containerd(engine);
    let guest = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let container = exec::running(containerd, image(guest));
    found.push(home(container.run("env", &["/program", "env"]).1));
    container.end();
    found
}

fn the_home_is_that_of_the_images_passwd(engine: &str) {
    let passwd = b"daemon:x:1:1::/nowhere:/bin/sh\nroot:x:0:0:root:/home/of/root:/bin/sh\n";
    let known = |bundle: Bundle| bundle.file("/etc/passwd", passwd, 0o644).unwrap();
    assert_eq!(homes(engine, known), ["/home/of/root"; 3]);
    assert_eq!(homes(engine, |bundle| bundle), ["/"; 3]);
}

fn a_passwd_that_is_no_ordinary_file_is_not_opened(engine: &str) {
    // Opening a FIFO to read waits, and /proc/kmsg takes from the kernel's log.
    let fifo = |bundle: Bundle| {
        fs::create_dir(bundle.image().join("etc")).unwrap();
        shimwright_testkit::stdio::fifo(&bundle.image().join("etc/passwd")).unwrap();
        bundle
    };
    assert_eq!(homes(engine, fifo), ["/"; 3]);
    let link = |bundle: Bundle| {
        fs::create_dir(bundle.image().join("etc")).unwrap();
        symlink("/proc/1/../kmsg", bundle.image().join("etc/passwd")).unwrap();
        bundle
    };
    assert_eq!(homes(engine, link), ["/"; 3]);
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
    let output = container.output("idle.out");
    let streams = [String::new(), output.path(), String::new()];
    let spec = exec::process(&["/idle.wasm"]);
    let idle = container
        .shim
        .add_exec("a", "idle", &spec, streams)
        .unwrap();
    let pid = idle.start().unwrap();
    output.wait_for("ready").unwrap();
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
    let output = container.output("idle.out");
    let streams = [String::new(), output.path(), String::new()];
    let spec = exec::process(&["/idle.wasm"]);
    let idle = container
        .shim
        .add_exec("a", "idle", &spec, streams)
        .unwrap();
    let pid = idle.start().unwrap();
    output.wait_for("ready").unwrap();
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

/// Tries to raise its own limit of memory, and to make a group.
const CGROUPS: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
static void try(const char *path) {
  int file = open(path, O_WRONLY);
  if (file < 0 && errno == ENOENT) return;
  printf("%d\n", file < 0 ? errno : 0);
}
int main(void) {
  try("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  try("/sys/fs/cgroup/pids/cgroup.procs");
  try("/sys/fs/cgroup/cgroup.procs");
  const char *places[] = { "/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/x" };
  for (int i = 0; i < 2; i++)
    if (mkdir(places[i], 0755) && errno != ENOENT) printf("%d\n", errno);
    else if (!access(places[i], F_OK)) printf("0\n");
  return 0;
}
"#;

fn a_read_only_mount_of_cgroups_cannot_be_written(engine: &str) {
    let containerd = crate::containerd(engine);
    let cgroups = program(&containerd, CGROUPS);
    let mut bundle = linux::bundle(&containerd, "a", "wait")
        .file("/cgroups", &cgroups, 0o755)
        .unwrap()
        .args(&["/cgroups"])
        .unwrap()
        .spec(|spec| {
            let mount = json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            });
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
            mounts.push(mount);
        })
        .unwrap();
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    let text = output.text().unwrap();
    assert!(!text.is_empty());
    for errno in text.lines() {
        assert_eq!(errno, libc::EROFS.to_string(), "{text}");
    }
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_link_in_place_of_dev_is_refused(engine: &str) {
    for is_guest in [true, false] {
        let containerd = crate::containerd(engine);
        let victim = containerd.directory().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("ptmx"), "a file of the node").unwrap();
        let bundle = if is_guest {
            containerd.bundle("a").unwrap().guest(HELLO).unwrap()
        } else {
            linux::bundle(&containerd, "a", "env")
        };
        symlink(&victim, bundle.image().join("dev")).unwrap();
        let shim = containerd.start(&bundle).unwrap();
        let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
        assert!(text.contains("symbolic link"), "{text}");
        let left: Vec<_> = fs::read_dir(&victim)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["ptmx"]);
        finish(&containerd, &shim);
    }
}

/// Makes a device node that is there on every machine: `/dev/null`.
fn device(path: &Path) {
    let device = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o777);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, device).unwrap();
}

fn a_device_in_place_of_the_entrypoint_is_not_opened(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let path = bundle.image().join("device");
    device(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let bundle = bundle.args(&["/device"]).unwrap();
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &path, WatchFlags::OPEN | WatchFlags::ATTRIB).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    assert!(shim.create(&bundle).is_err());
    let mut event = [0; 512];
    let opened = rustix::io::read(&watch, &mut event);
    assert_eq!(opened, Err(rustix::io::Errno::AGAIN));
    // The watch works.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(rustix::io::read(&watch, &mut event).is_ok());
    finish(&containerd, &shim);
}

/// Opens the file of its argument, and says how that went.
const OPENS: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    printf("%d\n", open(argv[i], O_RDONLY) < 0 ? errno : 0);
  return 0;
}
"#;

fn a_device_of_an_image_cannot_be_opened_beside_a_guest(engine: &str) {
    for is_overlay in [false, true] {
        let containerd = crate::containerd(engine);
        let opens = program(&containerd, OPENS);
        let volume = containerd.directory().join("volume");
        fs::create_dir(&volume).unwrap();
        device(&volume.join("device"));
        let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
        device(&bundle.image().join("device"));
        let bundle = bundle.file("/opens", &opens, 0o755).unwrap();
        let bundle = bundle.bind(&volume, "/volume").unwrap();
        let bundle = if is_overlay {
            bundle.overlay().unwrap()
        } else {
            bundle
        };
        let container = exec::running(containerd, bundle);
        // A guest's own process is held to the same mounts.
        let args = ["/opens", "/device", "/volume/device", "/dev/null"];
        let expected = format!("{0}\n{0}\n0\n", libc::EACCES);
        assert_eq!(container.run("opens", &args).1, expected, "{is_overlay}");
        container.end();
    }
}

fn a_volume_with_the_kernels_files_is_refused_for_guests(engine: &str) {
    let containerd = crate::containerd(engine);
    for source in ["/proc", "/sys", "/"] {
        let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
        let bundle = bundle.bind(Path::new(source), "/volume").unwrap();
        let shim = containerd.start(&bundle).unwrap();
        let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
        assert!(text.contains("file system of the kernel"), "{text}");
        finish(&containerd, &shim);
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
