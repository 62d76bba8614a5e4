//! `cargo xtask setup`: installs the Debian packages that building and testing need.

use std::process::ExitCode;

use shimwright_testenv::debian;
use shimwright_testenv::error::Result;

pub(crate) fn main() -> Result<ExitCode> {
    debian::install_missing()?;
    Ok(ExitCode::SUCCESS)
}
