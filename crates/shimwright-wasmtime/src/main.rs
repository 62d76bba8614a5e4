//! The shim that containerd knows as `io.containerd.wasmtime.v1`.

use std::process::ExitCode;

use shimwright_core::Shim;
use shimwright_wasmtime::Wasmtime;

fn main() -> ExitCode {
    Shim::new("wasmtime", env!("CARGO_PKG_VERSION"), Wasmtime::new).main()
}
