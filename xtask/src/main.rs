//! `cargo xtask`: what developers, CI and the curious run. This file only dispatches.
#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks to its user on stdout"
)]

mod attack;
mod bench;
mod cargo;
mod chaos;
mod ci;
mod compare;
mod demo;
mod dist;
mod e2e;
mod fuzz;
mod guests;
mod setup;
mod sizes;
mod tally;
mod test;
mod tidy;
mod vm;
mod wasi_testsuite;
mod wasmedge;

use std::process::ExitCode;

use shimwright_testenv::error::{Result, error};

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [app.wasm [args...]]     run a WebAssembly program with containerd, from nothing (root)
  test [--unit-only|--e2e-only] every test there is (root)
  e2e [--containerd 1.6|1.7|2.x] [--only TEXT]
                                the tests on real containerd alone (root)
  e2e --methods                 print which of them shows each method of the Task service
  chaos [--seconds N] [--seed N] [--fault TEXT]
                                faults in every step of a container's life, and what they leave (root)
  attack [TEXT...] [--no-vm]    the tests that attack the node, or those whose names have one of these
                                texts, with the cgroups of this machine and in the machine of vm (root)
  vm [TEXT...]                  tests of the shims whose names have one of these texts, by default those
                                about cgroups, attacks, and all of one engine, in an emulated machine with
                                cgroup v2 only (root)
  vm --chaos [ARGS]             chaos in that machine, whose clock may jump, with its arguments (root)
  fuzz [--seconds N] [--target NAME]
                                the parsers of what others hand us, 10 seconds each, with cargo-fuzz
  programs [--only TEXT]        CPython, QuickJS, Ruby and others on every engine but WasmEdge (root)
  programs --markdown           print which of them runs on which engine
  wasi-testsuite DIRECTORY... [--engine wasmtime|wasmer|wasmi] [--only TEXT] [--list]
                                tests as of WebAssembly/wasi-testsuite, the same engines (root)
  bench [--quick] [--shim PATH] [--peer PATH] [--wasmtime PATH] [--containers N] [--only TEXT]
        [--save FILE] [--baseline FILE]
                                every scenario of the benchmarks, and which targets are met (root)
  compare [--engine NAME]... [--output FILE] [--quick] [app.wasm [args...]]
                                the engines on sample programs or on yours, with plots (root)
  tidy                          check what compilers cannot
  ci                            format, lints, each crate alone, documentation, tidy, test (root)
  dist DIRECTORY [--engine NAME]...
                                the shims to install, smaller and slower to build: DIRECTORY/bin and
                                DIRECTORY/lib
  wasmedge [--prefix DIRECTORY] the shared libraries of the WasmEdge shim, built beside it, or
                                below DIRECTORY/lib
  wasmedge --test [ARGS]        the tests of that engine, with cargo's arguments
  setup                         install the Debian packages that the above need (root)";

fn main() -> ExitCode {
    match dispatch(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<ExitCode> {
    shimwright_testenv::process::catch_interrupts()?;
    let (command, args) = args
        .split_first()
        .map_or(("help", args), |(c, rest)| (c.as_str(), rest));
    match command {
        "demo" => demo::main(args),
        "test" => test::main(args),
        "e2e" => e2e::main(args),
        "attack" => attack::main(args),
        "chaos" => chaos::main(args),
        "fuzz" => fuzz::main(args),
        "programs" => e2e::programs(args),
        "wasi-testsuite" => wasi_testsuite::main(args),
        "bench" => bench::main(args),
        "compare" => compare::main(args),
        "tidy" => tidy::main(),
        "vm" => vm::main(args),
        "ci" => ci::main(),
        "dist" => dist::main(args),
        "setup" => setup::main(),
        "wasmedge" => wasmedge::main(args),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        unknown => Err(error!("there is no command `{unknown}`\n\n{USAGE}")),
    }
}

/// Words as a command of this program is given them.
#[cfg(test)]
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
