//! What the tests have in common: a container in the states that they begin with, and its end.

use shimwright_guests::Guest;
use shimwright_testkit::protos::protobuf::MessageField;
use shimwright_testkit::protos::protobuf::well_known_types::timestamp::Timestamp;
use shimwright_testkit::protos::ttrpc::{Code, Result as TtrpcResult};
use shimwright_testkit::{Bundle, Containerd, Output, Shim};

/// A shim that has been started for a bundle with this guest.
pub(crate) fn started(name: &str, guest: Guest) -> (Containerd, Bundle, Shim) {
    let containerd = crate::containerd(name);
    let bundle = containerd.bundle("a").unwrap().guest(guest).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    (containerd, bundle, shim)
}

/// The same with a container that runs and has written this.
pub(crate) fn running(
    name: &str,
    guest: Guest,
    written: &str,
) -> (Containerd, Bundle, Shim, Output) {
    let (containerd, mut bundle, shim) = started(name, guest);
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for(written).unwrap();
    (containerd, bundle, shim, output)
}

/// Starts a created container and returns its exit status.
pub(crate) fn run(shim: &Shim, id: &str) -> u32 {
    shim.start(id).unwrap();
    shim.wait(id).unwrap().exit_status
}

/// Ends a container and deletes it.
pub(crate) fn end(shim: &Shim, id: &str) {
    shim.kill(id, libc::SIGKILL).unwrap();
    assert_eq!(shim.wait(id).unwrap().exit_status, 137);
    shim.delete(id).unwrap();
}

/// Ends a shim without tasks and checks that nothing is left of it.
pub(crate) fn finish(containerd: &Containerd, shim: &Shim) {
    shim.shutdown();
    containerd.wait_until_clean().unwrap();
}

/// Checks the code of a refusal and returns its text.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: TtrpcResult<T>, code: Code) -> String {
    let (found, text) = shimwright_testkit::shim::refusal(outcome).unwrap();
    assert_eq!(found, code, "{text}");
    text
}

/// A time that is set.
#[track_caller]
pub(crate) fn time(timestamp: &MessageField<Timestamp>) -> (i64, i32) {
    let time = timestamp.as_ref().expect("a time");
    assert!(time.seconds > 0);
    (time.seconds, time.nanos)
}

/// Whether there is a process with this pid that is not a zombie.
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
