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
    Gap::new("proposal_exceptions", "wasmi does not have it"),
    Gap::new("proposal_gc", "wasmi does not have it"),
    Gap::new("proposal_threads", "wasmi does not have it"),
    Gap::new(
        "proposal_custom_page_sizes",
        "wasmi has it off by default, as the proposal is not finished",
    ),
];

fn main() -> ExitCode {
    Suite::new("wasmi", Wasmi::new).gaps(GAPS).main()
}
