//! A library to build containerd shims: everything except the engine.
//!
#![doc = include_str!("../README.md")]
//!
//! # The processes of a shim
//!
//! One binary has every role. Each role is a process of its own.
//!
//! | process | lives | does |
//! | --- | --- | --- |
//! | `start`, `delete`, `-info`, `metrics` | for one command | finds or starts the shim process; cleans up after a dead one; prints what it knows |
//! | shim process | as long as its pod | serves the Task API, versions 2 and 3; one thread, no engine |
//! | launcher | during one create, exec or delete | mounts, asks for compiled code, builds the sandbox or joins it, removes it; or becomes a logger |
//! | planner | while one manifest of an application is read, or one program is validated | [`Applications::plan`], [`Validator::validate`], without files, network or privileges |
//! | compiler | while one module is compiled | [`Precompiler::precompile`], without files, network or privileges |
//! | fetcher | while one Wasm layer is fetched | reads the layer from containerd |
//! | copier | as long as a container's plain log files | copies streams to and from files |
//! | runner | as long as the guest | [`Engine::run`] or [`Applications::run`], inside the sandbox |
//!
//! # Where to start
//!
//! Implement [`Engine`]. It gets a [`Workload`] and returns an [`Exit`]; containerd gets a [`Status`].

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

pub use engine::application::{
    Application, ApplicationFormat, Applications, Component, ImageLayer, Manifest, Plan, Source,
};
pub use engine::artifact::{Artifact, Kind, Precompiled, Wasm};
pub use engine::drain::drain_on_signals;
pub use engine::exit::Status;
pub use engine::limits::linear_memory::{LinearMemory, LinearMemoryExceeded};
pub use engine::limits::table_elements::{TableElements, TableElementsExceeded};
pub use engine::outbound::{NotADestination, Outbound};
pub use engine::workload::{DEFAULT_FUNCTION, Preopen, Workload};
pub use engine::{BoxError, Engine, Exit, Limit, Options, Precompiler, Refusal, Validator};
pub use runner::syscalls::forbid_new_code;
pub use shim::Shim;
