//! Signals.

use shimwright_guests::{HELLO, IDLE, SPIN};
use shimwright_testkit::Shim;
use shimwright_testkit::protos::api::{Empty, KillRequest};
use shimwright_testkit::protos::ttrpc::Code;

use crate::{end, finish, for_each_engine, linux, lives, refused, run, running, started};

for_each_engine! {
    sigterm_ends_a_busy_loop
    sigterm_ends_an_idle_guest
    sigkill_ends_a_busy_loop
    all_ends_every_process
    all_signals_each_process_once
    signal_0_only_asks
    a_signal_before_start_ends_the_container
    an_ended_container_has_no_process_to_kill
    an_unknown_signal_is_refused
    the_exit_event_carries_the_signal
}

fn check_signal(engine: &str, busy: bool, signal: i32, status: u32) {
    let (guest, written) = if busy {
        (SPIN, "spinning")
    } else {
        (IDLE, "ready")
    };
    let (containerd, _bundle, shim, _output) = running(engine, guest, written);
    shim.kill("a", signal).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, status);
    assert_eq!(shim.delete("a").unwrap().exit_status, status);
    finish(&containerd, &shim);
}

/// Sends a signal to every process of a container.
fn kill_all(shim: &Shim, signal: i32) {
    let request = KillRequest {
        id: "a".into(),
        signal: signal.unsigned_abs(),
        all: true,
        ..Default::default()
    };
    shim.call::<Empty>("Kill", &request).unwrap();
}

fn sigterm_ends_a_busy_loop(engine: &str) {
    check_signal(engine, true, libc::SIGTERM, 143);
}

fn sigterm_ends_an_idle_guest(engine: &str) {
    check_signal(engine, false, libc::SIGTERM, 143);
}

fn sigkill_ends_a_busy_loop(engine: &str) {
    check_signal(engine, true, libc::SIGKILL, 137);
}

fn all_ends_every_process(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let pids = shim.pids("a").unwrap();
    kill_all(&shim, libc::SIGKILL);
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    assert!(pids.iter().all(|pid| !lives(*pid)));
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// The program has a child, and both say which signals they get. These signals are queued: none
/// takes the place of another.
fn all_signals_each_process_once(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = linux::bundle(&containerd, "a", "signals");
    let shim = containerd.start(&bundle).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready\nready\n").unwrap();
    let [counted, last] = [libc::SIGRTMIN(), libc::SIGRTMIN() + 1];
    kill_all(&shim, counted);
    kill_all(&shim, last);
    assert_eq!(shim.wait("a").unwrap().exit_status, 7);
    let text = output.text().unwrap();
    for signal in [counted, last] {
        let line = format!("signal {signal}\n");
        assert_eq!(text.matches(&line).count(), 2, "{text}");
    }
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn signal_0_only_asks(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.kill("a", 0).unwrap();
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn a_signal_before_start_ends_the_container(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    shim.create(&bundle).unwrap();
    shim.kill("a", libc::SIGKILL).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    refused(shim.start("a"), Code::FAILED_PRECONDITION);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_ended_container_has_no_process_to_kill(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    refused(shim.kill("a", libc::SIGTERM), Code::NOT_FOUND);
    refused(shim.kill("a", libc::SIGKILL), Code::NOT_FOUND);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_unknown_signal_is_refused(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    refused(shim.kill("a", 1000), Code::INVALID_ARGUMENT);
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn the_exit_event_carries_the_signal(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.kill("a", libc::SIGKILL).unwrap();
    let exit = containerd.events().wait_for_exit("a").unwrap();
    assert_eq!(exit.exit_status, 137);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}
