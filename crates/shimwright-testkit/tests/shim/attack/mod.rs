//! Attacks on the node, from an image, a spec, a guest or a client: each has failed, and stays here.
//!
//! The markers are harmless. `cargo xtask attack` runs these tests alone.

mod advisories;
mod compile;
mod devices;
mod root;
mod runner;
mod service;
mod spec;

use std::process::Command;

use shimwright_testkit::Containerd;

/// A static program, compiled by the C compiler that Rust links with.
pub(crate) fn program(containerd: &Containerd, source: &str) -> Vec<u8> {
    compiled(containerd, source, &["-static"])
}

/// What the C compiler makes of a source.
fn compiled(containerd: &Containerd, source: &str, flags: &[&str]) -> Vec<u8> {
    let input = containerd.directory().join("attack.c");
    let output = containerd.directory().join("attack");
    std::fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command.args(flags).arg("-o").args([&output, &input]);
    assert!(command.status().unwrap().success());
    std::fs::read(output).unwrap()
}
