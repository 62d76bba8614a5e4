//! Runs the shared suite against Wasmer.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use shimwright_wasmer::Wasmer;

const GAPS: &[Gap] = &[
    Gap::new(
        "linear_memory_traps_at_its_limit",
        "Wasmer's limit makes `memory.grow` fail, and the guest goes on without the memory",
    ),
    Gap::new("proposal_tail_calls", "Wasmer has it off by default"),
    Gap::new(
        "proposal_memories",
        "Wasmer has addresses of 64 bits off by default",
    ),
    Gap::new("proposal_gc", "Wasmer does not have it"),
    Gap::new("proposal_custom_page_sizes", "Wasmer does not have it"),
];

fn main() -> ExitCode {
    Suite::new("wasmer", Wasmer::new).gaps(GAPS).main()
}
