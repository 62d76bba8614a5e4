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

mod account;
mod artifact;
mod bundle;
mod cache;
mod cgroup;
mod compiler;
mod content;
mod drain;
mod engine;
mod error;
mod events;
mod exit;
mod figures;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod idle;
mod image;
mod linear_memory;
mod linked;
mod log;
mod metrics;
mod node;
mod options;
mod outbound;
mod policy;
mod protected;
mod reaper;
mod role;
mod runner;
mod sandbox;
mod service;
mod shim;
mod stdio;
mod sys;
mod syscalls;
mod table_elements;
mod task;
mod workload;

pub use artifact::{Artifact, Kind, Precompiled, Wasm};
pub use drain::drain_on_signals;
pub use engine::{BoxError, Engine, Exit, Limit, Options, Precompiler, Refusal};
pub use exit::Status;
pub use linear_memory::{LinearMemory, LinearMemoryExceeded};
pub use outbound::{NotADestination, Outbound};
pub use shim::Shim;
pub use syscalls::{forbid_new_code, restrict_system_calls};
pub use table_elements::{TableElements, TableElementsExceeded};
pub use workload::{DEFAULT_FUNCTION, Preopen, Workload};
