//! The behaviour every engine is tested for.
//!
//! An engine's crate has a test with `harness = false` that is no longer than this:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use shimwright_conformance::{Gap, Suite};
//! # use shimwright_core::{BoxError, Engine, Exit, Options, Workload};
//! # struct MyEngine;
//! # impl MyEngine {
//! #     fn new(_: &Options) -> Result<Self, BoxError> { Ok(Self) }
//! # }
//! # impl Engine for MyEngine {
//! #     fn run(&self, _: &Workload) -> Result<Exit, BoxError> { Ok(Exit::Code(0)) }
//! # }
//!
//! const GAPS: &[Gap] = &[Gap::new("exit_code_wraps", "the library refuses codes above 125")];
//!
//! fn main() -> ExitCode {
//!     Suite::new("my-engine", MyEngine::new).gaps(GAPS).main()
//! }
//! ```
//!
//! Each case runs its guest in a process of its own, which is the runner of a shim: this program,
//! executed in that role, with its filter of system calls, its signals and its time limit. Native
//! code comes from a cache, as in a shim. Neither root nor containerd nor a network is needed, only
//! the loopback interface.
//!
//! The test takes a part of a case's name as argument, `--list`, and two options for
//! `docs/conformance.md`: `--markdown` prints what this engine does not pass, and
//! `--markdown-cases` the table of cases.

mod case;
mod cases;
mod guest;
mod report;
mod serving;
mod suite;

pub use suite::{Gap, Suite};
