//! A custom shim: the wasmi interpreter as `containerd-shim-wasmi-v1`.

use std::process::ExitCode;

use shimwright_core::Shim;
use wasmi_shim::Wasmi;

fn main() -> ExitCode {
    Shim::new("wasmi", env!("CARGO_PKG_VERSION"), Wasmi::new).main()
}
