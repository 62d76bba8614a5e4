//! The program that `cargo xtask e2e` and `cargo xtask programs` run.

use std::process::ExitCode;

fn main() -> ExitCode {
    shimwright_e2e::main()
}
