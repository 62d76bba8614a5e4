//! An update of limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::resources(bytes));
