//! The walls around one container, and the processes that build them.
//!
//! ```text
//! shim process ── fork ──▶ launcher ── libcontainer ──▶ container's first process
//!  (serves RPCs)            mounts the root,             waits for `start`, then executes
//!                           compiles, builds,            the runner (Wasm) or the image's
//!                           answers, ends                program (Linux)
//! ```
//!
//! The launcher is a fork of the shim process, which has a single thread, so that the child may
//! do anything. It is gone before `create` returns: an idle container has two processes.

mod application;
mod artifact;
pub(crate) mod cleanup;
pub(crate) mod create;
pub(crate) mod entrypoint;
pub(crate) mod executor;
pub(crate) mod home;
pub(crate) mod join;
pub(crate) mod program;
pub(crate) mod rootfs;
pub(crate) mod spawn;
pub(crate) mod supported;
pub(crate) mod terminal;
pub(crate) mod update;
mod view;
