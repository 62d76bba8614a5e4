//! Runs the shared suite against Wasmer.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use shimwright_wasmer::Wasmer;

const GAPS: &[Gap] = &[Gap::new(
    "linear_memory_traps_at_its_limit",
    "Wasmer's limit makes `memory.grow` fail, and the guest goes on without the memory",
)];

fn main() -> ExitCode {
    Suite::new("wasmer", Wasmer::new).gaps(GAPS).main()
}
