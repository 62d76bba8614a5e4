//! Benchmarks of shims: each is driven as containerd drives it, whichever engine it has.
//!
//! A module is a scenario, `scenario` and `compare` are the programs that run them. What a scenario
//! finds is JSON: [`stats`] says in which form.

pub mod churn;
pub mod commands;
pub mod compute;
pub mod driver;
pub mod http;
pub mod idle;
pub mod interrupt;
pub mod machine;
pub mod startup;
pub mod stats;

pub use shimwright_testkit::{Error, Result};
