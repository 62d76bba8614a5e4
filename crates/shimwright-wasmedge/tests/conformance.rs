//! Runs the shared suite against WasmEdge.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use shimwright_wasmedge::WasmEdge;

const GAPS: &[Gap] = &[Gap::new(
    "linear_memory_traps_at_its_limit",
    "WasmEdge's limit makes `memory.grow` fail, and the guest goes on without the memory",
)];

fn main() -> ExitCode {
    Suite::new("wasmedge", WasmEdge::new)
        .with_libraries()
        .gaps(GAPS)
        .main()
}
