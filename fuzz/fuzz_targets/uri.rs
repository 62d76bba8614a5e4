//! The name of a stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::uri(bytes));
