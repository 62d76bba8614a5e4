//! Linux programs in the same shim, such as a pod's sandbox.

use std::process::Command;

use shimwright_guests::HELLO;
use shimwright_testkit::{Bundle, Containerd};

use crate::{end, finish, for_each_engine, run};

for_each_engine! {
    a_linux_program_sees_only_the_environment_of_the_spec
    a_linux_program_has_only_its_streams_open
    a_linux_program_and_a_guest_share_a_pod
    a_signal_ends_a_linux_program
}

/// Does what its argument says. Static, so that it needs no root file system.
const PROGRAM: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
static volatile sig_atomic_t resized;
static void on_resize(int signal) { resized = signal; }
static void show_size(void) {
  struct winsize size;
  if (ioctl(0, TIOCGWINSZ, &size)) perror("size");
  printf("size %dx%d\n", size.ws_col, size.ws_row);
  fflush(stdout);
}
int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  if (!strcmp(what, "env"))
    for (char **variable = environ; *variable; variable++) puts(*variable);
  if (!strcmp(what, "files"))
    for (int file = 0; file < 1024; file++)
      if (fcntl(file, F_GETFD) >= 0) printf("%d\n", file);
  if (!strcmp(what, "terminal")) {
    for (int file = 0; file < 3; file++) printf("%d\n", isatty(file));
    printf("%s\n", ttyname(0) ? ttyname(0) : "unnamed");
    show_size();
  }
  if (!strcmp(what, "resize")) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGWINCH, on_resize);
    sigemptyset(&set);
    write(1, "ready\n", 6);
    while (!resized) sigsuspend(&set);
    show_size();
  }
  /* With a child that does the same: both end at the second signal. */
  if (!strcmp(what, "signals")) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    pid_t child = fork();
    write(1, "ready\n", 6);
    for (int signal = 0; signal != SIGRTMIN + 1;) {
      sigwait(&set, &signal);
      printf("signal %d\n", signal);
      fflush(stdout);
    }
    if (child) wait(NULL);
  }
  if (!strcmp(what, "pipe")) {
    struct sigaction action;
    sigaction(SIGPIPE, NULL, &action);
    puts(action.sa_handler == SIG_DFL ? "default" : "changed");
  }
  if (!strcmp(what, "nothing")) return 0;
  /* A file system that never answers: nobody reads the requests from its input. */
  if (!strcmp(what, "stall"))
    return mount("stalled", "/stalled", "fuse", 0, "fd=0,rootmode=40000,user_id=0,group_id=0") != 0;
  /* Leaves a child that holds the streams, and says which. */
  if (!strcmp(what, "background")) {
    pid_t child = fork();
    while (!child) pause();
    printf("%d\n", child);
    return 0;
  }
  if (!strcmp(what, "wait")) {
    write(1, "ready\n", 6);
    for (;;) pause();
  }
  return 7;
}
"#;

/// The program, compiled by the C compiler that Rust links with.
pub(crate) fn program(containerd: &Containerd) -> Vec<u8> {
    let source = containerd.directory().join("program.c");
    let binary = containerd.directory().join("program");
    std::fs::write(&source, PROGRAM).unwrap();
    let mut compile = Command::new("cc");
    let compiled = compile
        .arg("-static")
        .arg("-o")
        .arg(&binary)
        .arg(&source)
        .status()
        .unwrap();
    assert!(compiled.success());
    std::fs::read(binary).unwrap()
}

/// A bundle with the program.
pub(crate) fn bundle(containerd: &Containerd, id: &str, what: &str) -> Bundle {
    let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
    let bundle = bundle
        .file("/program", &program(containerd), 0o755)
        .unwrap();
    bundle
        .args(&["/program", what])
        .unwrap()
        .env(&["ONLY=this", "AND=that"])
        .unwrap()
}

fn check_output(engine: &str, what: &str, expected: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = bundle(&containerd, "a", what);
    let shim = containerd.start(&bundle).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 7);
    assert_eq!(output.text().unwrap(), expected);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_linux_program_sees_only_the_environment_of_the_spec(engine: &str) {
    check_output(engine, "env", "ONLY=this\nAND=that\nHOME=/\n");
}

fn a_linux_program_has_only_its_streams_open(engine: &str) {
    check_output(engine, "files", "0\n1\n2\n");
}

fn a_linux_program_and_a_guest_share_a_pod(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut pause = bundle(&containerd, "pause", "wait");
    let shim = containerd.start(&pause).unwrap();
    let ready = pause.stdout().unwrap();
    shim.create(&pause).unwrap();
    shim.start("pause").unwrap();
    ready.wait_for("ready").unwrap();
    let guest = containerd.bundle("guest").unwrap().pod("p").unwrap();
    let mut guest = guest.guest(HELLO).unwrap();
    let output = guest.stdout().unwrap();
    assert_eq!(containerd.start(&guest).unwrap().address(), shim.address());
    shim.create(&guest).unwrap();
    assert_eq!(run(&shim, "guest"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    shim.delete("guest").unwrap();
    end(&shim, "pause");
    finish(&containerd, &shim);
}

fn a_signal_ends_a_linux_program(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = bundle(&containerd, "a", "wait");
    let shim = containerd.start(&bundle).unwrap();
    let ready = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    ready.wait_for("ready").unwrap();
    shim.kill("a", libc::SIGKILL).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}
