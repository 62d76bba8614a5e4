//! Runs the shared suite against wasmi.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use wasmi_shim::Wasmi;

const GAPS: &[Gap] = &[];

fn main() -> ExitCode {
    Suite::new("wasmi", Wasmi::new).gaps(GAPS).main()
}
