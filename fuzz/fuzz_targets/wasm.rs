//! The beginning of a program and its name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::wasm(bytes));
