//! The shim that containerd knows as `io.containerd.wasmedge.v1`, and the program that runs its
//! guests: the one is static, the other is linked to the library.

use std::process::ExitCode;

use shimwright_core::Shim;
use shimwright_wasmedge::{LIBRARIES, REMEDY, WasmEdge};

fn main() -> ExitCode {
    Shim::new("wasmedge", env!("CARGO_PKG_VERSION"), WasmEdge::new)
        .with_libraries(LIBRARIES, REMEDY)
        .main()
}
