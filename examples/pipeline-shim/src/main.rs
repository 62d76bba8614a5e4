//! A shim for applications: pipelines of components, as `containerd-shim-pipeline-v1`.

use std::process::ExitCode;

use pipeline_shim::Pipelines;
use shimwright_core::Shim;

fn main() -> ExitCode {
    Shim::new("pipeline", env!("CARGO_PKG_VERSION"), Pipelines::new).main()
}
