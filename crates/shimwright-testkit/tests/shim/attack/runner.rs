//! A guest that has broken out of its engine: system calls are made in the runner itself, in its
//! first thread, by a tracer. Whatever the runner gave up it has given up here too.

use std::process::Command;

use serde_json::json;
use shimwright_guests::IDLE;
use shimwright_testkit::{Containerd, Output};

use super::compiled;
use crate::{end, finish, for_each_engine, running};

for_each_engine! {
    a_guest_that_has_broken_out_gets_nothing_more
    an_exec_that_has_broken_out_gets_nothing_more
}

/// Makes system calls in another process and prints the error of each.
const TRACER: &str = r##"
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t pid;
static struct user_regs_struct before;

static void regs(int request, struct user_regs_struct *at) {
  struct iovec all = {at, sizeof *at};
  if (ptrace(request, pid, (void *)NT_PRSTATUS, &all)) { perror("registers"); exit(1); }
}

/* The thread waits in a system call, so the instruction for one is just behind it. */
static long call(long number, long a, long b, long c, long d, long e, long f) {
  struct user_regs_struct now = before;
#if defined(__x86_64__)
  now.rip -= 2;
  now.rax = number; now.orig_rax = -1;
  now.rdi = a; now.rsi = b; now.rdx = c; now.r10 = d; now.r8 = e; now.r9 = f;
#else
  now.pc -= 4;
  now.regs[8] = number;
  long all[] = {a, b, c, d, e, f};
  for (int i = 0; i < 6; i++) now.regs[i] = all[i];
#endif
  regs(PTRACE_SETREGSET, &now);
  int status;
  if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) || waitpid(pid, &status, 0) < 0) exit(1);
  if (!WIFSTOPPED(status)) { puts("it has ended"); exit(1); }
  regs(PTRACE_GETREGSET, &now);
#if defined(__x86_64__)
  return now.rax;
#else
  return now.regs[0];
#endif
}

static void show(const char *name, long result) {
  printf("%s %s\n", name, result < 0 && result > -4096 ? strerrorname_np(-result) : "done");
}
#define TRY(name, ...) show(name, call(__VA_ARGS__))

int main(int argc, char **argv) {
  pid = atoi(argv[1]);
  int status;
  if (ptrace(PTRACE_SEIZE, pid, 0, 0) || ptrace(PTRACE_INTERRUPT, pid, 0, 0)) {
    perror("seize");
    return 1;
  }
  waitpid(pid, &status, __WALL);
  regs(PTRACE_GETREGSET, &before);
  long page = call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  show("memory", page);
  TRY("code", SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TRY("code-of-data", SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC, 0, 0, 0);
  char text[4096] = "marker";
  struct iovec from = {text, sizeof text}, to = {(void *)page, sizeof text};
  process_vm_writev(pid, &from, 1, &to, 1, 0);
  long file = call(SYS_memfd_create, page, 0, 0, 0, 0, 0);
  show("file-in-memory", file);
  TRY("file-length", SYS_ftruncate, file, 4096, 0, 0, 0, 0);
  TRY("code-of-file", SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
  printf("mdwe %ld\n", call(SYS_prctl, 66 /* PR_GET_MDWE */, 0, 0, 0, 0, 0));
  TRY("filter", SYS_seccomp, 1, 5, page, 0, 0, 0);
  TRY("owner", SYS_fcntl, 0, F_SETOWN, 1, 0, 0, 0);
  TRY("signal-of-file", SYS_fcntl, 0, F_SETSIG, SIGKILL, 0, 0, 0);
  TRY("owner-by-ioctl", SYS_ioctl, 0, 0x8901, page, 0, 0, 0);
  TRY("typing", SYS_ioctl, 0, TIOCSTI, page, 0, 0, 0);
  TRY("seqpacket", SYS_socket, AF_INET, SOCK_SEQPACKET, 0, 0, 0, 0);
  TRY("ping", SYS_socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMP, 0, 0, 0);
  TRY("netlink", SYS_socket, AF_NETLINK, SOCK_RAW, 0, 0, 0, 0);
  TRY("tipc-pair", SYS_socketpair, AF_TIPC, SOCK_STREAM, 0, page, 0, 0);
  long tcp = call(SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0, 0);
  show("tcp", tcp);
  TRY("packet-program", SYS_setsockopt, tcp, SOL_SOCKET, SO_ATTACH_FILTER, page, 16, 0);
  TRY("process", SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
  TRY("program", SYS_execve, page, 0, 0, 0, 0, 0);
  TRY("trace", SYS_ptrace, PTRACE_TRACEME, 0, 0, 0, 0, 0);
  TRY("kill", SYS_kill, 1 + (call(SYS_getpid, 0, 0, 0, 0, 0, 0) == 1), 0, 0, 0, 0, 0);
  TRY("mount", SYS_mount, page, page, page, 0, 0, 0);
  TRY("priorities", SYS_futex, page, FUTEX_LOCK_PI, 0, 0, 0, 0);
  TRY("notices", SYS_pipe2, page, O_EXCL, 0, 0, 0, 0);
  /* Landlock: a device that is opened from here on takes no ioctl, see `devices` below. */
  memcpy(text, "/dev/null", 10);
  process_vm_writev(pid, &from, 1, &to, 1, 0);
  long device = call(SYS_openat, AT_FDCWD, page, O_RDWR, 0, 0, 0);
  show("device", device);
  TRY("device-ioctl", SYS_ioctl, device, TCGETS, page + 2048, 0, 0, 0);
  printf("landlock %ld\n", syscall(444, 0, 0, 1));
  /* It cannot go on: the call that it waited in is gone. */
  kill(pid, SIGKILL);
  return 0;
}
"##;

/// What is allowed because engines need it.
const ALLOWED: [&str; 4] = ["memory", "file-in-memory", "file-length", "tcp"];

#[track_caller]
fn break_out(containerd: &Containerd, pid: u32) {
    let tracer = containerd.directory().join("tracer");
    std::fs::write(&tracer, compiled(containerd, TRACER, &["-static", "-w"])).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&tracer, std::fs::Permissions::from_mode(0o700)).unwrap();
    let ran = Command::new(&tracer).arg(pid.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{ran:?}");
    let found: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let of = |name: &str| found.iter().find(|found| found.0 == name).unwrap().1;
    for (name, outcome) in &found {
        let expected = match *name {
            allowed if ALLOWED.contains(&allowed) => "done",
            // Set by kernels that have it, at the latest by 6.18.
            "mdwe" | "landlock" | "device" | "device-ioctl" => continue,
            _ => "EPERM",
        };
        assert_eq!(*outcome, expected, "{name}: {text}");
    }
    assert!(["1", "-22"].contains(&of("mdwe")), "{text}");
    let version: i32 = of("landlock").parse().unwrap();
    if version >= 5 && of("device") == "done" {
        assert_eq!(of("device-ioctl"), "EACCES", "{text}");
    }
}

fn a_guest_that_has_broken_out_gets_nothing_more(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let pid = shim.state("a").unwrap().pid;
    break_out(&containerd, pid);
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_exec_that_has_broken_out_gets_nothing_more(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let output = Output::new(&containerd.directory().join("out")).unwrap();
    let process = json!({
        "args": ["/guest.wasm"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "capabilities": {}, "noNewPrivileges": true,
    });
    let streams = [String::new(), output.path(), String::new()];
    let exec = shim.add_exec("a", "b", &process, streams).unwrap();
    let pid = exec.start().unwrap();
    output.wait_for("ready").unwrap();
    break_out(&containerd, pid);
    assert_eq!(exec.wait().unwrap().exit_status, 137);
    exec.delete().unwrap();
    end(&shim, "a");
    finish(&containerd, &shim);
}
