//! Components.

use shimwright_guests as guest;

use super::given::FILES;
use super::run;
use crate::case::{Case, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "component_refused_or_run",
        "A component runs, or is refused with a reason",
        Run::guest(guest::HELLO_COMPONENT)
            .args(&["guest", "and", "components"])
            .stdout("Hello from Wasm and components\n"),
    ),
    run(
        "component_exit_code",
        "A component that ends with an error has exit status 1",
        Run::guest(guest::EXIT_CODE_COMPONENT)
            .args(&["guest", "3"])
            .exits(1),
    ),
    run(
        "component_exit_with_code",
        "`exit-with-code` of `wasi:cli/exit` is the exit status",
        Run::guest(guest::EXIT_WITH_CODE_COMPONENT).exits(3),
    ),
    run(
        "component_trap",
        "A component's trap has status 134 and a reason of one line",
        Run::guest(guest::TRAP_COMPONENT).traps(),
    ),
    run(
        "component_idle_runs_until_killed",
        "As `idle_runs_until_killed`, for a component",
        Run::guest(guest::IDLE_COMPONENT)
            .stdout("ready\n")
            .runs_until_killed(),
    ),
    run(
        "component_stdout_stderr",
        "As `stdout_stderr`, for a component",
        Run::guest(guest::STREAMS_COMPONENT)
            .stdout("to standard output")
            .stderr("to standard error"),
    ),
    run(
        "component_stdin_eof",
        "As `stdin_eof`, for a component",
        Run::guest(guest::CAT_COMPONENT)
            .stdin("one\ntwo")
            .stdout("one\ntwo<end of input>\n"),
    ),
    run(
        "component_args",
        "As `args`, for a component",
        Run::guest(guest::ARGS_COMPONENT)
            .args(&["name", "", "two words", "ü"])
            .stdout("name\n\ntwo words\nü\n"),
    ),
    run(
        "component_env",
        "As `env`, for a component",
        Run::guest(guest::ENV_COMPONENT)
            .env(&[("B", "2"), ("A", "1=one"), ("EMPTY", "")])
            .stdout("B=2\nA=1=one\nEMPTY=\n"),
    ),
    run(
        "component_preopen_read_write",
        "As `preopen_read_write`, for a component",
        Run::guest(guest::FILES_COMPONENT)
            .directory(FILES)
            .stdout("done\n"),
    ),
    run(
        "component_custom_function",
        "An exported function of a component can be the entrypoint",
        Run::guest(guest::REACTOR_COMPONENT)
            .function("greet")
            .stdout("greetings\n"),
    ),
    run(
        "component_missing_function",
        "As `missing_function`, for a component",
        Run::guest(guest::REACTOR_COMPONENT)
            .function("absent")
            .fails("absent"),
    ),
    run(
        "component_missing_run",
        "A component without `wasi:cli/run` is an error that says so",
        Run::guest(guest::REACTOR_COMPONENT).fails("wasi:cli/run"),
    ),
    run(
        "component_0_3_command",
        "A command of WASI 0.3 runs as one, also if it is a command of 0.2 too",
        Run::guest(guest::COMMAND_0_3_COMPONENT).stdout("Hello from WASI 0.3\n"),
    ),
];
