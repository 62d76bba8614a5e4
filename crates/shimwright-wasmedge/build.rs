//! Decides whether the crate is linked to the library. If it is not, but will not be part of a static
//! program either, that is an error which says what to do.
//!
//! It is linked if `RUSTFLAGS` have `--cfg wasmedge_library`, on which the dependency depends. The
//! code asks for `linked` instead, because rustdoc has other flags.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(linked)");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if env::var_os("CARGO_CFG_WASMEDGE_LIBRARY").is_some() {
        println!("cargo::rustc-cfg=linked");
    } else if !features.split(',').any(|feature| feature == "crt-static") {
        println!(
            "cargo::error=a program that is not static needs libwasmedge 0.17.1: run `cargo xtask \
             wasmedge`; or install libwasmedge-dev of that version and libclang-dev, and build with \
             RUSTFLAGS='--cfg wasmedge_library' WASMEDGE_INCLUDE_DIR=/usr/include and \
             WASMEDGE_LIB_DIR=<the directory of libwasmedge.so>"
        );
    }
}
