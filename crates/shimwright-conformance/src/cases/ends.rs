//! How a guest ends.

use shimwright_guests as guest;

use super::run;
use crate::case::{Case, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "exit_zero",
        "A guest that returns has exit status 0",
        Run::guest(guest::HELLO).stdout("Hello from Wasm\n"),
    ),
    run(
        "exit_code",
        "The guest's exit code is the exit status",
        Run::guest(guest::EXIT_CODE).args(&["guest", "3"]).exits(3),
    ),
    run(
        "exit_code_wraps",
        "Codes above 125 are the guest's to use, and are cut to eight bits",
        Run::guest(guest::EXIT_CODE)
            .args(&["guest", "-1"])
            .exits(255),
    ),
    run(
        "trap_unreachable",
        "A trap has status 134 and a reason of one line, which begins with the engine's name",
        Run::guest(guest::TRAP).traps_with("unreachable"),
    ),
    run(
        "trap_division",
        "A division by zero is a trap, and its reason says so",
        Run::guest(guest::DIVIDE).traps_with("integer divide by zero"),
    ),
    run(
        "trap_out_of_bounds",
        "An access beyond the memory is a trap, and its reason says so",
        Run::guest(guest::OUT_OF_BOUNDS).traps_with("out of bounds"),
    ),
    run(
        "trap_stack_overflow",
        "Endless recursion is a trap, and its reason is the stack",
        Run::guest(guest::STACK_OVERFLOW).traps_with("stack"),
    ),
    run(
        "idle_runs_until_killed",
        "A guest that waits keeps running, and its output is not held back",
        Run::guest(guest::IDLE)
            .stdout("ready\n")
            .runs_until_killed(),
    ),
    run(
        "spin_runs_until_killed",
        "A guest that never calls the host keeps running until it is killed",
        Run::guest(guest::SPIN)
            .stdout("spinning\n")
            .runs_until_killed(),
    ),
];
