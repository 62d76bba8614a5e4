//! What we have written down about a container.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::record(bytes));
