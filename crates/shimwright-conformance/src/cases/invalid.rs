//! What is no guest.

use shimwright_core::{BoxError, Engine, Wasm};
use shimwright_guests as guest;

use super::{ask, run};
use crate::case::{Answer, Case, Run};

pub(super) const CASES: &[Case] = &[
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
        "invalid_body_refused",
        "So is a module with a function that is not valid",
        Run::guest(guest::INVALID_BODY).fails(""),
    ),
    ask(
        "invalid_module_refused_at_create",
        "Both are found when the container is created: by the precompiler, or else by the validator",
        invalid_module_at_create,
    ),
    run(
        "broken_component_refused",
        "A component that is not valid is an error",
        Run::wasm(BROKEN_COMPONENT).fails(""),
    ),
];

/// A module by its preamble, and nothing after it.
pub(super) const BROKEN_MODULE: &[u8] = b"\0asm\x01\0\0\0 broken ";

/// A component by its preamble, and nothing after it.
const BROKEN_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 broken ";

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

/// Fails if a container would be created of a module that is not valid.
fn invalid_module_at_create(engine: &dyn Engine) -> Result<Answer, BoxError> {
    for wasm in [BROKEN_MODULE, guest::INVALID_BODY.wasm()] {
        let is_taken = match engine.precompiler() {
            Some(precompiler) => precompiler.precompile(wasm).is_ok(),
            None => engine
                .validator()
                .is_none_or(|validator| validator.validate(wasm).is_ok()),
        };
        if is_taken {
            return Err(format!("{} bytes of an invalid module were taken", wasm.len()).into());
        }
    }
    Ok(Answer::Right)
}

/// Fails if `bytes` would be given to an engine as WebAssembly.
pub(super) fn refused(bytes: &[u8]) -> Result<(), BoxError> {
    match Wasm::new(bytes.to_vec()) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("{} bytes of no WebAssembly were taken for it", bytes.len()).into()),
    }
}
