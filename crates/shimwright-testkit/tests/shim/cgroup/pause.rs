//! Pausing a container, and what ends a paused one.

use shimwright_guests::{HELLO, IDLE, SPIN};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::protos::types::task::Status;
use shimwright_testkit::{Containerd, Shim, poll};

use super::{content, either, running_program, status, ticks};
use crate::{end, finish, for_each_engine, lives, refused, run, running, started};

for_each_engine! {
    a_paused_guest_stands_still_until_it_is_resumed
    a_paused_program_stands_still_until_it_is_resumed
    a_paused_container_can_be_killed
    a_paused_container_can_be_killed_with_all_its_processes
    a_paused_container_ends_with_its_shim
    pause_and_resume_are_refused_in_other_states
}

fn check_pause(containerd: &Containerd, shim: &Shim) {
    let pid = shim.state("a").unwrap().pid;
    shim.pause("a").unwrap();
    assert_eq!(status(shim), Status::PAUSED);
    let (file, frozen) = either(("freezer.state", "FROZEN"), ("cgroup.freeze", "1"));
    assert_eq!(content(containerd, "freezer", file), frozen);
    let used = ticks(pid);
    // What was done meanwhile takes longer than a clock tick.
    for _ in 0..200 {
        shim.stats("a").unwrap();
    }
    assert_eq!(ticks(pid), used);
    refused(shim.delete("a"), Code::FAILED_PRECONDITION);
    refused(shim.pause("a"), Code::FAILED_PRECONDITION);
    assert_eq!(shim.pids("a").unwrap(), [pid]);

    shim.resume("a").unwrap();
    assert_eq!(status(shim), Status::RUNNING);
    poll(|| (ticks(pid) > used).then_some(())).expect("it runs again");
    refused(shim.resume("a"), Code::FAILED_PRECONDITION);
    end(shim, "a");
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "paused", "resumed", "exit", "delete"]
    );
}

fn a_paused_guest_stands_still_until_it_is_resumed(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, SPIN, "spinning");
    check_pause(&containerd, &shim);
    finish(&containerd, &shim);
}

fn a_paused_program_stands_still_until_it_is_resumed(engine: &str) {
    let (containerd, shim, _output) = running_program(engine, "spin", "spinning");
    check_pause(&containerd, &shim);
    finish(&containerd, &shim);
}

fn check_kill(engine: &str, all: bool) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.pause("a").unwrap();
    // A signal that can be handled waits until it can be.
    shim.kill("a", libc::SIGTERM).unwrap();
    assert_eq!(status(&shim), Status::PAUSED);
    let request = shimwright_testkit::protos::api::KillRequest {
        id: "a".into(),
        signal: 9,
        all,
        ..Default::default()
    };
    shim.call::<shimwright_testkit::protos::api::Empty>("Kill", &request)
        .unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    assert_eq!(status(&shim), Status::STOPPED);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_paused_container_can_be_killed(engine: &str) {
    check_kill(engine, false);
}

fn a_paused_container_can_be_killed_with_all_its_processes(engine: &str) {
    check_kill(engine, true);
}

fn a_paused_container_ends_with_its_shim(engine: &str) {
    let (containerd, bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.pause("a").unwrap();
    let answer = shim.connect_task("a").unwrap();
    crate::signal(answer.shim_pid, rustix::process::Signal::KILL);
    poll(|| (!lives(answer.shim_pid)).then_some(())).expect("the shim ends");
    containerd.delete(bundle.directory(), "a").unwrap();
    assert!(!lives(answer.task_pid));
    containerd.wait_until_clean().unwrap();
}

fn pause_and_resume_are_refused_in_other_states(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    refused(shim.pause("a"), Code::NOT_FOUND);
    refused(shim.resume("a"), Code::NOT_FOUND);
    shim.create(&bundle).unwrap();
    refused(shim.pause("a"), Code::FAILED_PRECONDITION);
    refused(shim.resume("a"), Code::FAILED_PRECONDITION);
    assert_eq!(run(&shim, "a"), 0);
    refused(shim.pause("a"), Code::FAILED_PRECONDITION);
    let text = refused(shim.resume("a"), Code::FAILED_PRECONDITION);
    assert_eq!(text, "cannot resume a task that is stopped");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}
