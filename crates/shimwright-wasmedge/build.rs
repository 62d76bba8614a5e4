//! Says early and by its name which package is missing, as the bindings of the library do not.

use std::env;
use std::path::Path;

/// What is looked for, in the directory of the first variable, below that of the second.
const PLACES: [(&str, &str); 3] = [
    ("WASMEDGE_INCLUDE_DIR", "wasmedge/wasmedge.h"),
    ("WASMEDGE_DIR", "include/wasmedge/wasmedge.h"),
    ("HOME", ".wasmedge/include/wasmedge/wasmedge.h"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        return;
    }
    let found = PLACES.iter().any(|(variable, file)| {
        println!("cargo::rerun-if-env-changed={variable}");
        env::var_os(variable).is_some_and(|place| Path::new(&place).join(file).exists())
    });
    if !found && !Path::new("/usr/local/include/wasmedge/wasmedge.h").exists() {
        println!(
            "cargo::error=libwasmedge 0.17.1 is not found: run `cargo xtask wasmedge`; or install \
             libwasmedge-dev (0.17.1) and libclang-dev and set WASMEDGE_INCLUDE_DIR=/usr/include and \
             WASMEDGE_LIB_DIR to the directory of libwasmedge.so"
        );
    }
}
