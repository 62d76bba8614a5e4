//! Native code that the engine has compiled, as a cache gives it.

use shimwright_core::{BoxError, Engine, Kind};
use shimwright_guests as guest;

use super::invalid::{BROKEN_MODULE, refused};
use super::{ask, run};
use crate::case::{Answer, Case, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "precompiled_round_trip",
        "What the cache gives of a compiled module runs",
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
        "What the cache gives of a compiled component runs",
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

fn foreign_native_code(engine: &dyn Engine) -> Result<Answer, BoxError> {
    let Some(precompiler) = engine.precompiler() else {
        return Ok(Answer::NoPrecompiler);
    };
    refused(&precompiler.precompile(guest::HELLO.wasm())?)?;
    Ok(Answer::Right)
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
