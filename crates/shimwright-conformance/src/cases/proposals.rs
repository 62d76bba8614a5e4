//! What WebAssembly has besides its first version, and an engine may lack: then it says so.

use shimwright_guests as guest;

use super::run;
use crate::case::{Case, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "proposal_tail_calls",
        "Tail calls",
        Run::guest(guest::TAIL_CALL).needs("tail call").exits(42),
    ),
    run(
        "proposal_memories",
        "Several memories, and 64-bit addresses",
        Run::guest(guest::MEMORIES).needs("memor").exits(42),
    ),
    run(
        "proposal_exceptions",
        "Exceptions (`exnref`)",
        Run::guest(guest::EXCEPTION).needs("exceptions").exits(42),
    ),
    run(
        "proposal_gc",
        "Garbage collection: structs and arrays, and what is not used any more is freed",
        Run::guest(guest::GC).needs("gc").exits(42),
    ),
    run(
        "proposal_threads",
        "Threads: a shared memory and atomic instructions",
        Run::guest(guest::SHARED_MEMORY)
            .needs("shared memor")
            .exits(42),
    ),
    run(
        "proposal_custom_page_sizes",
        "Custom page sizes",
        Run::guest(guest::CUSTOM_PAGE_SIZE)
            .needs("page size")
            .exits(42),
    ),
];
