//! Which function is called.

use shimwright_guests as guest;

use super::run;
use crate::case::{Case, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "custom_function",
        "An exported function of another name can be the entrypoint",
        Run::guest(guest::REACTOR)
            .function("greet")
            .stdout("greetings\n"),
    ),
    run(
        "custom_function_initialized",
        "`_initialize` is called before a function of another name",
        Run::guest(guest::REACTOR)
            .function("state")
            .stdout("initialized\n"),
    ),
    run(
        "custom_function_after_exit",
        "A guest that exits in `_initialize` has ended, and the function is not called",
        Run::guest(guest::EXIT_EARLY).function("late").exits(3),
    ),
    run(
        "custom_function_result",
        "A result of the entrypoint is dropped",
        Run::guest(guest::REACTOR).function("answer"),
    ),
    run(
        "custom_function_parameters",
        "An entrypoint with parameters is an error that names it",
        Run::guest(guest::REACTOR)
            .function("add")
            .fails("the function `add` needs 2 parameters, but gets none"),
    ),
    run(
        "missing_function",
        "A function that does not exist is an error that names it",
        Run::guest(guest::HELLO)
            .function("absent")
            .fails("the module exports no function `absent`"),
    ),
    run(
        "not_a_function",
        "An export that is not a function is an error that names it",
        Run::guest(guest::HELLO)
            .function("memory")
            .fails("the module exports no function `memory`"),
    ),
    run(
        "missing_start",
        "A module without `_start` is an error that says so",
        Run::guest(guest::REACTOR).fails("_start"),
    ),
    run(
        "missing_import",
        "An import that does not exist is an error that names it",
        Run::guest(guest::MISSING_IMPORT).fails("absent"),
    ),
    run(
        "start_section",
        "A module's start section may call the host, and runs before the function",
        Run::guest(guest::START_SECTION).stdout("started\nrunning\n"),
    ),
    run(
        "start_section_exit",
        "A guest that exits in its start section has ended, and the function is not called",
        Run::guest(guest::START_EXITS).exits(3),
    ),
    run(
        "start_beside_initialize",
        "`_start` is a command: `_initialize` is not called before it",
        Run::guest(guest::INITIALIZE_AND_START).exits(42),
    ),
    run(
        "other_function_beside_start",
        "`_initialize` is called before a function of another name, also if there is a `_start`",
        Run::guest(guest::INITIALIZE_AND_START)
            .function("other")
            .exits(3),
    ),
    run(
        "no_memory",
        "A module need not have a memory",
        Run::guest(guest::NO_MEMORY),
    ),
    run(
        "no_memory_initialized",
        "As `custom_function_initialized`, for a module without a memory",
        Run::guest(guest::NO_MEMORY).function("check"),
    ),
    run(
        "hidden_memory",
        "A module need not export its memory",
        Run::guest(guest::HIDDEN_MEMORY),
    ),
];
