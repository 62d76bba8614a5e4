//! What containerd may rely on, asked of the real shims: each test for each engine.
//!
//! Every test ends with [`finish`]: nothing of it may be left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attack;
mod binary;
mod cache;
mod cgroup;
mod common;
mod crash;
mod exec;
mod failures;
mod give_up;
mod guest;
mod hooks;
mod http;
mod kill;
mod lifecycle;
mod limits;
mod linux;
mod logger;
mod many;
mod mounts;
mod options;
mod posture;
mod service;
mod shared;
mod start;
mod stdio;
mod terminal;
mod wasmedge;

use shimwright_engines::Engine;
use shimwright_testkit::Containerd;

use common::{end, finish, lives, refused, run, running, signal, started, time};

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
