//! Everything but the engine: a library to build containerd shims with.
//!
#![doc = include_str!("../README.md")]
//!
//! # The processes of a shim
//!
//! One binary plays every part.
//!
//! | process | lives | does |
//! | --- | --- | --- |
//! | `start`, `delete`, `-info` | for one command of containerd | finds or starts the shim process; cleans up after a dead one |
//! | shim process | as long as its pod | serves the Task API, versions 2 and 3; one thread, no engine |
//! | launcher | while a container is created or deleted | mounts, compiles, builds the sandbox |
//! | compiler | while a module is compiled | [`Precompiler::precompile`], without files, network or privileges |
//! | runner | as long as the guest | [`Engine::run`], inside the sandbox |
//!
//! # Where to start
//!
//! [`Engine`] is the contract, [`Workload`] is what an engine is given, [`Exit`] is what it says
//! in the end, [`Status`] is what containerd is told.

#[cfg(not(target_os = "linux"))]
compile_error!("containerd shims of this crate run on Linux only");

mod cgroup;
mod code;
mod config;
mod container;
mod engine;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod policy;
mod process;
mod runner;
mod service;
mod shim;
mod stdio;
mod sys;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;

pub use engine::artifact::{Artifact, Kind, Precompiled, Wasm};
pub use engine::drain::drain_on_signals;
pub use engine::exit::Status;
pub use engine::limits::linear_memory::{LinearMemory, LinearMemoryExceeded};
pub use engine::limits::table_elements::{TableElements, TableElementsExceeded};
pub use engine::outbound::{NotADestination, Outbound};
pub use engine::workload::{DEFAULT_FUNCTION, Preopen, Workload};
pub use engine::{BoxError, Engine, Exit, Limit, Options, Precompiler, Refusal};
pub use runner::syscalls::{forbid_new_code, restrict_system_calls};
pub use shim::Shim;
