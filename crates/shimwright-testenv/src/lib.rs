//! What the tests of this repository run on: processes with deadlines, Debian packages that are
//! unpacked and never installed, a private containerd, and what it leaves behind.
//!
//! `cargo xtask`, the end-to-end tests and the benchmarks share it. It depends on no other crate of
//! the workspace, so that `cargo xtask` stays quick to build.
//!
//! ```no_run
//! use shimwright_testenv::containerd::{Containerd, Release};
//! use shimwright_testenv::image::{Entry, Image};
//!
//! # fn main() -> shimwright_testenv::error::Result<()> {
//! let containerd = Containerd::start(Release::V1_7, &["/usr/local/bin".as_ref()])?;
//! let files = vec![Entry::file("app.wasm", std::fs::read("app.wasm")?)];
//! containerd.import(&Image::of_files("example.invalid/app:1", &["/app.wasm"], files))?;
//! # Ok(())
//! # }
//! ```
#![allow(
    clippy::print_stdout,
    reason = "a download takes a while, and whoever waits for it sees why"
)]

pub mod containerd;
pub mod debian;
pub mod error;
pub mod image;
pub mod leak;
pub mod network;
pub mod package;
pub mod process;
pub mod workspace;
