//! The table of cases.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use shimwright_core::{BoxError, Engine, Kind, Limit, Wasm};
use shimwright_guests as guest;

use crate::case::{Answer, Case, Check, Directory, Run};

/// A module by its preamble, and nothing after it.
const BROKEN_MODULE: &[u8] = b"\0asm\x01\0\0\0 broken ";

/// A component by its preamble, and nothing after it.
const BROKEN_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 broken ";

/// Every case, in the order of the documentation.
pub(crate) const CASES: &[Case] = &[
    // How a guest ends.
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
        "A trap has status 134 and a reason of one line",
        Run::guest(guest::TRAP).traps(),
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
    // What a guest is given.
    run(
        "stdout_stderr",
        "Output is passed on as it is, each stream to its own",
        Run::guest(guest::STREAMS)
            .stdout("to standard output")
            .stderr("to standard error"),
    ),
    run(
        "stdin_eof",
        "Input is passed on as it is, and its end is seen",
        Run::guest(guest::CAT)
            .stdin("one\ntwo")
            .stdout("one\ntwo<end of input>\n"),
    ),
    run(
        "args",
        "Arguments are passed on in order, the program's name, empty and non-ASCII ones included",
        Run::guest(guest::ARGS)
            .args(&["name", "", "two words", "ü"])
            .stdout("name\n\ntwo words\nü\n"),
    ),
    run(
        "env",
        "The guest sees the workload's environment in order, and nothing of the host's",
        Run::guest(guest::ENV)
            .env(&[("B", "2"), ("A", "1=one"), ("EMPTY", "")])
            .stdout("B=2\nA=1=one\nEMPTY=\n"),
    ),
    run(
        "preopen_read_write",
        "Files in a preopen can be created, read, written, listed, renamed and removed",
        Run::guest(guest::FILES).directory(FILES).stdout("done\n"),
    ),
    run(
        "preopen_escape_denied",
        "Neither `..` nor an absolute path nor a symbolic link leads out of a preopen",
        Run::guest(guest::ESCAPE)
            .directory(ESCAPE)
            .stdout("denied\n"),
    ),
    run(
        "memory_grows",
        "A guest's memory grows, here by 64 MiB",
        Run::guest(guest::MEMORY)
            .args(&["guest", "64"])
            .stdout("touched\n"),
    ),
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
            .fails("but its limit is 65536"),
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
        "clocks_random",
        "Clocks run, sleeping takes time, and random bytes differ",
        Run::guest(guest::CLOCKS_RANDOM).stdout("fine\n"),
    ),
    // Which function is called.
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
    // What is no guest.
    ask(
        "not_wasm_refused",
        "Bytes that are no WebAssembly are refused",
        not_wasm,
    ),
    run(
        "broken_module_refused",
        "A module that is not valid is an error",
        Run::wasm(BROKEN_MODULE).fails(""),
    ),
    run(
        "broken_component_refused",
        "A component that is not valid is an error",
        Run::wasm(BROKEN_COMPONENT).fails(""),
    ),
    // Components.
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
    run(
        "component_http_setting",
        "A component that handles HTTP requests is served, unless a setting has no meaning",
        Run::guest(guest::HTTP_COMPONENT)
            .env(&[("SHIMWRIGHT_HTTP_ADDRESS", "nowhere")])
            .fails("SHIMWRIGHT_HTTP_ADDRESS"),
    ),
    // Precompiled code.
    run(
        "precompiled_round_trip",
        "What the precompiler made of a module runs",
        Run::guest(guest::HELLO)
            .precompiled()
            .args(&["guest", "once", "more"])
            .stdout("Hello from Wasm once more\n"),
    ),
    run(
        "precompiled_trap",
        "A trap in precompiled code is as any other",
        Run::guest(guest::TRAP).precompiled().traps(),
    ),
    run(
        "precompiled_component_round_trip",
        "What the precompiler made of a component runs",
        Run::guest(guest::HELLO_COMPONENT)
            .precompiled()
            .stdout("Hello from Wasm\n"),
    ),
    ask(
        "precompiler_refuses_broken_module",
        "The precompiler reports what is not valid",
        precompiler_refuses_broken_module,
    ),
    ask(
        "fingerprint_is_stable",
        "The precompiler's fingerprint does not change by itself",
        fingerprint_is_stable,
    ),
    ask(
        "foreign_native_code_refused",
        "Precompiled code that comes as an image's bytes is refused",
        foreign_native_code,
    ),
];

const fn run(name: &'static str, asserts: &'static str, run: Run) -> Case {
    Case {
        name,
        asserts,
        check: Check::Run(run),
    }
}

const fn ask(
    name: &'static str,
    asserts: &'static str,
    ask: fn(&dyn Engine) -> Result<Answer, BoxError>,
) -> Case {
    Case {
        name,
        asserts,
        check: Check::Ask(ask),
    }
}

const FILES: Directory = Directory {
    set_up: |beside| fs::write(beside.join("data/in.txt"), "twice\n"),
    check: |beside| {
        let found = fs::read_to_string(beside.join("data/out.txt"))?;
        if found != "twice\ntwice\n" {
            return Err(format!("out.txt holds {found:?}").into());
        }
        if beside.join("data/in.txt").exists() {
            return Err("in.txt was not removed".into());
        }
        Ok(())
    },
};

const ESCAPE: Directory = Directory {
    set_up: lay_traps,
    check: check_secret,
};

fn lay_traps(beside: &Path) -> io::Result<()> {
    fs::write(beside.join("secret"), "secret")?;
    symlink("../secret", beside.join("data/link"))?;
    symlink("..", beside.join("data/linkdir"))
}

fn check_secret(beside: &Path) -> Result<(), BoxError> {
    match fs::read_to_string(beside.join("secret")) {
        Ok(text) if text == "secret" => Ok(()),
        Ok(text) => Err(format!("secret holds {text:?}").into()),
        Err(error) => Err(format!("cannot read secret any more: {error}").into()),
    }
}

fn not_wasm(_engine: &dyn Engine) -> Result<Answer, BoxError> {
    for bytes in [
        &b""[..],
        b"\0asm",
        b"#!/bin/sh\nexit 0\n",
        b"\x7fELF\x02\x01\x01\0\0\0\0\0",
    ] {
        refused(bytes)?;
    }
    Ok(Answer::Right)
}

fn foreign_native_code(engine: &dyn Engine) -> Result<Answer, BoxError> {
    let Some(precompiler) = engine.precompiler() else {
        return Ok(Answer::NoPrecompiler);
    };
    refused(&precompiler.precompile(guest::HELLO.wasm())?)?;
    Ok(Answer::Right)
}

/// Fails if `bytes` would be given to an engine as WebAssembly.
fn refused(bytes: &[u8]) -> Result<(), BoxError> {
    match Wasm::new(bytes.to_vec()) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("{} bytes of no WebAssembly were taken for it", bytes.len()).into()),
    }
}

fn precompiler_refuses_broken_module(engine: &dyn Engine) -> Result<Answer, BoxError> {
    let Some(precompiler) = engine.precompiler() else {
        return Ok(Answer::NoPrecompiler);
    };
    match precompiler.precompile(BROKEN_MODULE) {
        Err(_) => Ok(Answer::Right),
        Ok(_) => Err(format!("a broken {} was compiled", Kind::Module).into()),
    }
}

fn fingerprint_is_stable(engine: &dyn Engine) -> Result<Answer, BoxError> {
    let Some(precompiler) = engine.precompiler() else {
        return Ok(Answer::NoPrecompiler);
    };
    let first = precompiler.fingerprint();
    if first.is_empty() {
        return Err("it is empty".into());
    }
    precompiler.precompile(guest::HELLO.wasm())?;
    let second = precompiler.fingerprint();
    if first != second {
        return Err(format!("it was {first:?} and became {second:?}").into());
    }
    Ok(Answer::Right)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The guest of one engine's own tests, and the one that benchmarks run and check.
    const OF_OTHERS: [guest::Guest; 2] = [guest::WASMEDGE_SERVER, guest::COMPUTE];

    #[test]
    fn every_guest_has_a_case() {
        let all = guest::ALL.iter();
        for guest in all.filter(|guest| !OF_OTHERS.contains(guest)) {
            let used = CASES.iter().any(|case| match &case.check {
                Check::Run(run) => run.wasm == guest.wasm(),
                Check::Ask(_) => false,
            });
            assert!(used, "no case for {guest:?}");
        }
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
    }
}
