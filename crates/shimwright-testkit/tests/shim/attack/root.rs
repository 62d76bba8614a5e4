//! An image's root: its links and libraries, and what runs before its program does.

mod devices;
mod files;
mod join;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use shimwright_guests::{ENV, HELLO, IDLE};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd};

use super::{compiled, program};
use crate::exec;
use crate::{finish, for_each_engine, linux, refused, run};

for_each_engine! {
    no_library_of_an_image_runs_before_its_program
    the_home_is_that_of_the_images_passwd
    a_passwd_that_is_no_ordinary_file_is_not_opened
    a_read_only_mount_of_cgroups_cannot_be_written
    a_link_in_place_of_dev_leads_nowhere
    a_volume_with_the_kernels_files_is_refused_for_guests
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

fn a_link_in_place_of_dev_leads_nowhere(engine: &str) {
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
        // It leads to a directory of the container, or round in a circle if that is below `/dev`.
        if shim.create(&bundle).is_ok() {
            run(&shim, "a");
            shim.delete("a").unwrap();
        }
        let left: Vec<_> = fs::read_dir(&victim)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["ptmx"]);
        finish(&containerd, &shim);
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
