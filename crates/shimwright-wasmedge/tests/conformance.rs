//! Runs the shared suite against WasmEdge.

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit};
use shimwright_conformance::{Gap, Suite};
use shimwright_wasmedge::WasmEdge;

const GAPS: &[Gap] = &[
    Gap::new(
        "trap_stack_overflow",
        "nothing limits how deep calls go but memory, and in compiled code the stack, whose end \
         is SIGSEGV",
    ),
    Gap::new(
        "linear_memory_traps_at_its_limit",
        "WasmEdge's limit makes `memory.grow` fail, and the guest goes on without the memory",
    ),
];

/// More than any other case needs.
const MEMORY: Option<u64> = Some(1 << 30);

fn main() -> ExitCode {
    // Endless recursion is interpreted until there is no memory left: have that be soon.
    let limit = Rlimit {
        current: MEMORY,
        maximum: MEMORY,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Data, limit) {
        eprintln!("cannot limit the memory of the cases: {error}");
        return ExitCode::FAILURE;
    }
    Suite::new("wasmedge", WasmEdge::new).gaps(GAPS).main()
}
