//! A shim that dies, and what `delete` makes of it.

use std::time::Duration;

use rustix::process::Signal;
use shimwright_guests::{HELLO, IDLE, SPIN};
use shimwright_testkit::protos::api::ConnectResponse;
use shimwright_testkit::{Shim, poll, poll_for};

use crate::{containerd, finish, for_each_engine, lives, run, running, started};

for_each_engine! {
    an_idle_guest_dies_with_its_shim
    a_busy_guest_dies_with_its_shim
    a_created_container_dies_with_its_shim
    delete_removes_what_a_dead_shim_left
    delete_of_an_unknown_bundle_succeeds
    a_shim_can_be_started_after_a_crash
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
