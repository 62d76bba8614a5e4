//! `cargo xtask ci`: everything `.ci/run` does, in its order.

use std::process::{Command, ExitCode};

use shimwright_testenv::debian;
use shimwright_testenv::error::Result;
use shimwright_testenv::process;

use crate::cargo::{self, BUILD_DEADLINE};
use crate::{test, tidy, wasmedge};

/// Packages and features that are checked by themselves: everything else that is built here is
/// built together, where a feature that one package forgets is there for another's sake.
///
/// The facade follows, with each of its engines.
const ALONE: [&[&str]; 3] = [
    &["-p", "shimwright-core"],
    &["-p", "shimwright-wasmtime", "--no-default-features"],
    &["-p", FACADE],
];

const FACADE: &str = "shimwright";

pub(crate) fn main() -> Result<ExitCode> {
    debian::require_root("ci")?;
    debian::install_missing()?;
    step("format", cargo::cargo(&["fmt", "--all", "--check"]))?;
    // They are workspaces of their own, which `--all` does not reach.
    for other in [cargo::CRI_CLIENT, cargo::FUZZ_TARGETS] {
        let format = ["fmt", "--manifest-path", other, "--check"];
        step(&format!("format of {other}"), cargo::cargo(&format))?;
    }
    let client = ["--manifest-path", cargo::CRI_CLIENT];
    let lint = [
        &["clippy", "--release"][..],
        &client,
        &["--", "-D", "warnings"],
    ]
    .concat();
    step("lints of the CRI client", cargo::cargo(&lint))?;
    // The profile of the tests, so that build scripts and procedural macros are compiled once.
    let clippy = [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    step("lints", cargo::cargo(&clippy))?;
    step("lints of what is linked to libwasmedge", wasmedge::lints()?)?;
    let engines = shimwright_engines::installed();
    let facades = engines.map(|engine| vec!["-p", FACADE, "--features", engine.name]);
    for alone in ALONE.map(<[&str]>::to_vec).into_iter().chain(facades) {
        let check = [&["check", "--release"], &alone[..]].concat();
        step(
            &format!("{} alone", alone[1..].join(" ")),
            cargo::cargo(&check),
        )?;
    }
    let mut doc = cargo::cargo(&[
        "doc",
        "--release",
        "--workspace",
        "--all-features",
        "--no-deps",
    ]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", doc)?;
    println!("==> tidy");
    if tidy::main(tidy::Options::default())? != ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    test::run(true, true)
}

fn step(name: &str, command: Command) -> Result<()> {
    println!("==> {name}");
    process::show(command, BUILD_DEADLINE)
}
