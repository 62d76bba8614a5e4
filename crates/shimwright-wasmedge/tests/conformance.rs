//! Runs the shared suite against WasmEdge.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use shimwright_wasmedge::WasmEdge;

const GAPS: &[Gap] = &[
    Gap::new(
        "linear_memory_traps_at_its_limit",
        "WasmEdge's limit makes `memory.grow` fail, and the guest goes on without the memory",
    ),
    Gap::new(
        "proposal_exceptions",
        "WasmEdge's compiler does not have it, and the interpreter is not used",
    ),
    Gap::new(
        "proposal_gc",
        "WasmEdge never frees what a guest has allocated so, so a guest would fill the memory",
    ),
    Gap::new("proposal_threads", "WasmEdge has it off by default"),
    Gap::new("proposal_custom_page_sizes", "WasmEdge does not have it"),
];

fn main() -> ExitCode {
    Suite::new("wasmedge", WasmEdge::new)
        .with_libraries()
        .gaps(GAPS)
        .main()
}
