//! The image's manifest of an application, or the plan of one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::application(bytes));
