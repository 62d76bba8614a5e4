//! The walls around one container, and the processes that build them.
//!
//! ```text
//! shim process ── fork ──▶ launcher ── clone ──▶ container's first process
//!  (serves RPCs)            mounts the image,     builds the sandbox (`init`, `root`), waits for
//!                           compiles, answers,    `start`, then executes the runner (Wasm) or the
//!                           ends                  image's program (Linux)
//! ```
//!
//! The launcher is a fork of the shim process, which has a single thread, so that the child may
//! do anything. The first process is a child of the shim process too. The launcher is gone before `create` returns: an idle container has two processes.

mod application;
mod artifact;
pub(crate) mod cleanup;
pub(crate) mod create;
pub(crate) mod entrypoint;
pub(crate) mod executor;
pub(crate) mod home;
mod init;
pub(crate) mod join;
pub(crate) mod program;
#[allow(dead_code, reason = "not called yet")]
pub(crate) mod root;
pub(crate) mod rootfs;
pub(crate) mod spawn;
pub(crate) mod supported;
pub(crate) mod terminal;
pub(crate) mod update;
mod view;
