//! WasmEdge's sections of native code. The file is pure, and its crate is not for static programs only.
#![no_main]

#[path = "../../crates/shimwright-wasmedge/src/wasm.rs"]
mod wasm;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wasm::fuzz(bytes));
