//! The end-to-end tests: real shims under a private containerd of each supported version, under
//! Docker on top of it, and under the calls that a kubelet makes.
//!
//! `cargo xtask e2e` builds and runs them as root. `cargo xtask e2e --only TEXT` runs those whose
//! names hold `TEXT`.
//!
//! # Adding a test
//!
//! A test is a function and a row in the table of its module below `src/cases/`. Its name says what
//! it shows. To add one, copy both, here from `cases/program.rs`:
//!
//! ```text
//! pub(crate) const CASES: &[Case] = &[
//!     Case::new("a guest sees its arguments", Needs::Ours, arguments),
//!     ...
//! ];
//!
//! fn arguments(stage: &mut Stage) -> Result<()> {
//!     let container = stage.guest("args").args(&["one", "two words", ""]);
//!     check(&container.run(stage)?, 0, "/args.wasm\none\ntwo words\n\n")
//! }
//! ```
//!
//! `Needs` says what the test runs with: our shims, or any runtime. `stage.guest` names a program of
//! `shimwright-guests`, `stage.linux` a command of busybox. Whatever a test starts has to be gone
//! when it returns: the runner looks for processes, mounts, cgroups, sockets and bundles, and fails
//! the test that leaves some.

mod cases;
mod dockerd;
mod kubelet;
mod method;
mod programs;
mod runner;
mod stage;

pub use runner::main;
