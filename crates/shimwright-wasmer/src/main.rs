//! The shim that containerd knows as `io.containerd.wasmer.v1`.

use std::process::ExitCode;

use shimwright_core::Shim;
use shimwright_wasmer::Wasmer;

fn main() -> ExitCode {
    Shim::new("wasmer", env!("CARGO_PKG_VERSION"), Wasmer::new).main()
}
