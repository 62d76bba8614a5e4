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
        Run::guest(guest::REACTOR).function("add").fails("add"),
    ),
    run(
        "missing_function",
        "A function that does not exist is an error that names it",
        Run::guest(guest::HELLO).function("absent").fails("absent"),
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
];
