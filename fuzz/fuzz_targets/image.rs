//! An image's index and manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::image(bytes));
