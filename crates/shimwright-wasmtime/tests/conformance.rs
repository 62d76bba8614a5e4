//! Runs the shared suite against Wasmtime.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use shimwright_wasmtime::Wasmtime;

const GAPS: &[Gap] = &[
    Gap::new(
        "proposal_threads",
        "WASI preview 1 has no way to start a thread, so Wasmtime is built without shared memory",
    ),
    Gap::new(
        "proposal_custom_page_sizes",
        "Wasmtime has it off by default, as the proposal is not finished",
    ),
];

fn main() -> ExitCode {
    Suite::new("wasmtime", Wasmtime::new).gaps(GAPS).main()
}
