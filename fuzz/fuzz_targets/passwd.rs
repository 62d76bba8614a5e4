//! An image's `/etc/passwd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shimwright_core::fuzzing::passwd(bytes));
