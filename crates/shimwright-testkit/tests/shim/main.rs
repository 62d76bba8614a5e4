//! What containerd may rely on, asked of the real shims: each test for each engine.
//!
//! Every test ends with [`finish`]: nothing of it may be left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attack;
mod binary;
mod cache;
mod cgroup;
mod crash;
mod exec;
mod failures;
mod hooks;
mod http;
mod kill;
mod lifecycle;
mod limits;
mod linux;
mod logger;
mod many;
mod options;
mod posture;
mod service;
mod shared;
mod start;
mod stdio;
mod terminal;
mod wasmedge;

use shimwright_engines::Engine;
use shimwright_guests::Guest;
use shimwright_testkit::protos::protobuf::MessageField;
use shimwright_testkit::protos::protobuf::well_known_types::timestamp::Timestamp;
use shimwright_testkit::protos::ttrpc::{Code, Result as TtrpcResult};
use shimwright_testkit::{Bundle, Containerd, Output, Shim};

/// Makes a test of each function for each engine, in a module with the engine's name.
macro_rules! for_each_engine {
    ($($name:ident)*) => {
        shimwright_engines::with_engines!(crate::each_engine; $($name)*);
    };
}
use for_each_engine;

/// The same for each engine that compiles native code ahead of time, in modules below `compiling`.
macro_rules! for_each_compiler {
    ($($name:ident)*) => {
        mod compiling {
            use super::{$($name),*};

            shimwright_engines::with_engines!(crate::each_compiler; $($name)*);
        }
    };
}
use for_each_compiler;

macro_rules! each_engine {
    ($names:tt $($engine:ident $execution:ident $row:tt)*) => {
        $(crate::tests!($engine $names);)*
    };
}
use each_engine;

macro_rules! each_compiler {
    ($names:tt $($engine:ident $execution:ident $row:tt)*) => {
        $(crate::tests!($engine $execution $names);)*
    };
}
use each_compiler;

macro_rules! tests {
    ($engine:ident Interpreted $names:tt) => {};
    ($engine:ident $(Compiled)? [$($name:ident)*]) => {
        mod $engine {
            $(
                #[test]
                fn $name() {
                    super::$name(concat!("containerd-shim-", stringify!($engine), "-v1"));
                }
            )*
        }
    };
}
use tests;

/// The row of a shim in the table of engines.
fn engine(shim: &str) -> &'static Engine {
    shimwright_engines::by_shim(shim).unwrap_or_else(|| panic!("{shim} is of no engine"))
}

/// A containerd whose runtime is this shim.
fn containerd(name: &str) -> Containerd {
    Containerd::new(name).unwrap_or_else(|error| panic!("{error}"))
}

/// A shim that has been started for a bundle with this guest.
fn started(name: &str, guest: Guest) -> (Containerd, Bundle, Shim) {
    let containerd = containerd(name);
    let bundle = containerd.bundle("a").unwrap().guest(guest).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    (containerd, bundle, shim)
}

/// The same with a container that runs and has written this.
fn running(name: &str, guest: Guest, written: &str) -> (Containerd, Bundle, Shim, Output) {
    let (containerd, mut bundle, shim) = started(name, guest);
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for(written).unwrap();
    (containerd, bundle, shim, output)
}

/// Starts a created container and returns its exit status.
fn run(shim: &Shim, id: &str) -> u32 {
    shim.start(id).unwrap();
    shim.wait(id).unwrap().exit_status
}

/// Ends a container and deletes it.
fn end(shim: &Shim, id: &str) {
    shim.kill(id, libc::SIGKILL).unwrap();
    assert_eq!(shim.wait(id).unwrap().exit_status, 137);
    shim.delete(id).unwrap();
}

/// Ends a shim without tasks and checks that nothing is left of it.
fn finish(containerd: &Containerd, shim: &Shim) {
    shim.shutdown();
    containerd.wait_until_clean().unwrap();
}

/// Checks the code of a refusal and returns its text.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: TtrpcResult<T>, code: Code) -> String {
    let (found, text) = shimwright_testkit::shim::refusal(outcome).unwrap();
    assert_eq!(found, code, "{text}");
    text
}

/// A time that is set.
#[track_caller]
fn time(timestamp: &MessageField<Timestamp>) -> (i64, i32) {
    let time = timestamp.as_ref().expect("a time");
    assert!(time.seconds > 0);
    (time.seconds, time.nanos)
}

/// Whether there is a process with this pid that is not a zombie.
fn lives(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

/// Sends a signal to a process.
fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
