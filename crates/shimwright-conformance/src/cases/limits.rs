//! Limits: those that an engine enforces, and time, which the runner does.

use shimwright_core::Limit;
use shimwright_guests as guest;

use super::run;
use crate::case::{Case, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "linear_memory_within_its_limit",
        "A guest that needs less than its limit of linear memory does not notice it",
        Run::guest(guest::MEMORY)
            .args(&["guest", "3"])
            .limit(Limit::LinearMemory, 8 << 20)
            .stdout("touched\n"),
    ),
    run(
        "linear_memory_traps_at_its_limit",
        "Growing beyond the limit is a trap, and its reason names the limit",
        Run::guest(guest::MEMORY)
            .args(&["guest", "64"])
            .limit(Limit::LinearMemory, 8 << 20)
            .traps_with("but its limit is 8388608"),
    ),
    run(
        "linear_memory_to_begin_with",
        "A module that begins with more than the limit is not run, and the reason names the limit",
        Run::guest(guest::MEMORY)
            .limit(Limit::LinearMemory, 1 << 16)
            .fails("the guest needs 131072 bytes of linear memory, but its limit is 65536"),
    ),
    run(
        "linear_memory_of_a_component",
        "The same for a component",
        Run::guest(guest::HELLO_COMPONENT)
            .limit(Limit::LinearMemory, 1 << 16)
            .fails("but its limit is 65536"),
    ),
    run(
        "table_elements_within_their_limit",
        "A guest that needs no more elements in its tables than its limit does not notice it",
        Run::guest(guest::TABLE).limit(Limit::TableElements, 1000),
    ),
    run(
        "table_elements_trap_at_their_limit",
        "Growing a table beyond the limit is a trap, and its reason names the limit",
        Run::guest(guest::TABLE)
            .limit(Limit::TableElements, 999)
            .traps_with("but its limit is 999"),
    ),
    run(
        "table_elements_to_begin_with",
        "A module that begins with more is not run, and the reason names the limit",
        Run::guest(guest::TABLE)
            .limit(Limit::TableElements, 9)
            .fails("but its limit is 9"),
    ),
    run(
        "instances_of_a_component",
        "A component of more core instances than its limit is not run",
        Run::guest(guest::HELLO_COMPONENT)
            .limit(Limit::Instances, 1)
            .fails("instance"),
    ),
    run(
        "stack_within_its_limit",
        "Calls that need less stack than the limit do not notice it",
        Run::guest(guest::DEEP).limit(Limit::Stack, 1 << 30),
    ),
    run(
        "stack_traps_at_its_limit",
        "Calls that need more are a trap, also where they would not be without the limit",
        Run::guest(guest::DEEP).limit(Limit::Stack, 1 << 16).traps(),
    ),
    run(
        "time_limit_ends_a_busy_guest",
        "At its time limit a guest that never calls the host ends with status 124 and a reason",
        Run::guest(guest::SPIN).stdout("spinning\n").time_limit(1),
    ),
    run(
        "time_limit_ends_an_idle_guest",
        "So does a guest that waits in a call of the host",
        Run::guest(guest::IDLE).stdout("ready\n").time_limit(1),
    ),
    run(
        "component_time_limit_ends_an_idle_guest",
        "The same for a component",
        Run::guest(guest::IDLE_COMPONENT)
            .stdout("ready\n")
            .time_limit(1),
    ),
    run(
        "time_limit_within",
        "A guest that ends before its time limit does not notice it",
        Run::guest(guest::HELLO)
            .within_seconds(60)
            .stdout("Hello from Wasm\n"),
    ),
];
