//! Runs the shared suite against wasmi.

use std::process::ExitCode;

use shimwright_conformance::{Gap, Suite};
use wasmi_shim::Wasmi;

const GAPS: &[Gap] = &[
    Gap::new(
        "exit_code_wraps",
        "wasi-common traps on exit codes above 125",
    ),
    Gap::new(
        "custom_function_result",
        "the example calls functions without a result only",
    ),
];

fn main() -> ExitCode {
    Suite::new("wasmi", Wasmi::new).gaps(GAPS).main()
}
