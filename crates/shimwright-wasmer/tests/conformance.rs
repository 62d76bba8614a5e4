//! Runs the shared suite against Wasmer.

use std::process::ExitCode;

use shimwright_conformance::Suite;
use shimwright_wasmer::Wasmer;

fn main() -> ExitCode {
    Suite::new("wasmer", Wasmer::new).main()
}
