//! Runs the shared suite against Wasmtime.

use std::process::ExitCode;

use shimwright_conformance::Suite;
use shimwright_wasmtime::Wasmtime;

fn main() -> ExitCode {
    Suite::new("wasmtime", Wasmtime::new).main()
}
