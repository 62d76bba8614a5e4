//! A shim that dies, and what `delete` makes of it.

use std::time::Duration;

use rustix::process::Signal;
use shimwright_guests::{HELLO, IDLE, SPIN};
use shimwright_testkit::bundle::GUEST;
use shimwright_testkit::protos::api::ConnectResponse;
use shimwright_testkit::{Shim, poll, poll_for};

use crate::binary::{leb128, section};
use crate::{containerd, finish, for_each_compiler, for_each_engine, lives, run, running, started};

for_each_engine! {
    an_idle_guest_dies_with_its_shim
    a_busy_guest_dies_with_its_shim
    a_created_container_dies_with_its_shim
    delete_removes_what_a_dead_shim_left
    delete_of_an_unknown_bundle_succeeds
    a_shim_can_be_started_after_a_crash
}

for_each_compiler! {
    a_compiler_dies_with_its_shim
}

/// Kills a shim, and waits as containerd does, until the connection is lost. What the shim's death
/// entails may take longer.
fn crash(shim: &Shim) -> ConnectResponse {
    let answer = shim.connect_task("a").unwrap();
    crate::signal(answer.shim_pid, Signal::KILL);
    poll(|| shim.connect_task("a").err()).expect("the connection is lost");
    answer
}

fn check_death(engine: &str, guest: shimwright_guests::Guest, written: &str) {
    let (containerd, bundle, shim, _output) = running(engine, guest, written);
    let answer = crash(&shim);
    let died = poll_for(Duration::from_secs(5), || {
        (!lives(answer.task_pid)).then_some(())
    });
    assert!(died.is_some(), "{:#?}", containerd.snapshot());
    containerd.delete(bundle.directory(), "a").unwrap();
    containerd.wait_until_clean().unwrap();
}

fn an_idle_guest_dies_with_its_shim(engine: &str) {
    check_death(engine, IDLE, "ready");
}

fn a_busy_guest_dies_with_its_shim(engine: &str) {
    check_death(engine, SPIN, "spinning");
}

fn a_created_container_dies_with_its_shim(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let pid = shim.create(&bundle).unwrap();
    crash(&shim);
    containerd.delete(bundle.directory(), "a").unwrap();
    let died = poll_for(Duration::from_secs(5), || (!lives(pid)).then_some(()));
    assert!(died.is_some(), "{:#?}", containerd.snapshot());
    containerd.wait_until_clean().unwrap();
}

fn delete_removes_what_a_dead_shim_left(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let mut bundle = bundle.overlay().unwrap();
    let output = bundle.stdout().unwrap();
    let pid = shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    let before = containerd.snapshot();
    assert!(!before.mounts.is_empty() && !before.cgroups.is_empty());
    crash(&shim);
    let begin = std::time::Instant::now();
    let deleted = containerd.delete(bundle.directory(), "a").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!((deleted.exit_status, deleted.pid), (137, pid));
    crate::time(&deleted.exited_at);
    containerd.wait_until_clean().unwrap();
    let again = containerd.delete(bundle.directory(), "a").unwrap();
    assert_eq!(again.exit_status, 137);
    containerd.wait_until_clean().unwrap();
}

fn delete_of_an_unknown_bundle_succeeds(engine: &str) {
    let containerd = containerd(engine);
    let absent = containerd.directory().join("absent");
    assert_eq!(containerd.delete(&absent, "a").unwrap().exit_status, 137);
    let empty = containerd.directory().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert_eq!(containerd.delete(&empty, "a").unwrap().exit_status, 137);
    containerd.wait_until_clean().unwrap();
}

fn a_shim_can_be_started_after_a_crash(engine: &str) {
    let (containerd, bundle, shim, _output) = running(engine, IDLE, "ready");
    crash(&shim);
    containerd.delete(bundle.directory(), "a").unwrap();
    containerd.wait_until_clean().unwrap();
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// A module that takes a compiler long: so many functions of so many additions.
pub(crate) fn slow_to_compile() -> Vec<u8> {
    const FUNCTIONS: usize = 4000;
    // No locals; `i32.const 0`, and `i32.const 1`, `i32.add` again and again; `drop`, `end`.
    let body = [
        &[0, 0x41, 0][..],
        &[0x41, 1, 0x6a].repeat(2000),
        &[0x1a, 0x0b],
    ]
    .concat();
    let code = [&leb128(body.len())[..], &body].concat();
    let functions = leb128(FUNCTIONS);
    [
        &b"\0asm\x01\0\0\0"[..],
        &section(1, &[1, 0x60, 0, 0]),
        &section(3, &[&functions[..], &[0; FUNCTIONS]].concat()),
        &section(7, &[&[1, 6][..], b"_start", &[0, 0]].concat()),
        &section(10, &[&functions[..], &code.repeat(FUNCTIONS)].concat()),
    ]
    .concat()
}

/// The parent of a process, field 4 of `/proc/PID/stat`.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The compilers that launchers of this shim run.
pub(crate) fn compilers(shim: u32) -> Vec<u32> {
    let is_compiler = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.starts_with(b"SHIMWRIGHT_COMPILER=")
    };
    let of = |launcher: u32| children(launcher).into_iter().filter(is_compiler);
    children(shim).into_iter().flat_map(of).collect()
}

/// The first of them.
pub(crate) fn compiler(shim: u32) -> Option<u32> {
    compilers(shim).first().copied()
}

/// The children of a process that are no zombies.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &u32| parent(pid) == Some(of) && lives(pid))
        .collect()
}

fn a_compiler_dies_with_its_shim(engine: &str) {
    let containerd = containerd(engine);
    let bundle = containerd.bundle("a").unwrap();
    let bundle = bundle.file(GUEST, &slow_to_compile(), 0o755).unwrap();
    let bundle = bundle.args(&[GUEST]).unwrap().overlay().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim.connect_task("a").unwrap().shim_pid;
    std::thread::scope(|scope| {
        scope.spawn(|| shim.create(&bundle).unwrap_err());
        let compiler = poll(|| compiler(pid)).expect("the module is compiled");
        crate::signal(pid, Signal::KILL);
        let died = poll_for(Duration::from_secs(5), || (!lives(compiler)).then_some(()));
        assert!(died.is_some(), "the compiler goes on");
    });
    containerd.delete(bundle.directory(), "a").unwrap();
    containerd.wait_until_clean().unwrap();
}
