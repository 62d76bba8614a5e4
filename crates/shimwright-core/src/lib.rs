//! Build containerd shims that run WebAssembly.
#![cfg_attr(not(target_os = "linux"), doc = "Linux only.")]

#[cfg(not(target_os = "linux"))]
compile_error!("containerd shims of this crate run on Linux only");

mod artifact;
mod bundle;
mod cache;
mod cgroup;
mod compiler;
mod content;
mod engine;
mod error;
mod events;
mod exit;
mod host;
mod image;
mod log;
mod metrics;
mod options;
mod policy;
mod reaper;
mod role;
mod runner;
mod sandbox;
mod service;
mod shim;
mod stdio;
mod sys;
mod task;
mod workload;

pub use artifact::{Artifact, Kind, Precompiled, Wasm};
pub use engine::{BoxError, Engine, Exit, Options, Precompiler, Refusal};
pub use exit::Status;
pub use shim::Shim;
pub use workload::{DEFAULT_FUNCTION, Preopen, Workload};
