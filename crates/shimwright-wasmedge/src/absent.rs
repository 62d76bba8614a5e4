//! What a static program has instead of the library.

use shimwright_core::{BoxError, Exit, Workload};

use crate::config::Settings;

const REASON: &str = "this program is static, and so has no libwasmedge: `cargo xtask wasmedge` \
                      builds the one that has";

pub(crate) fn run(_: &Settings, _: &Workload) -> Result<Exit, BoxError> {
    Err(REASON.into())
}

pub(crate) fn load(_: &Settings) -> Result<(), BoxError> {
    Err(REASON.into())
}

pub(crate) fn precompile(_: &Settings, _: &[u8]) -> Result<Vec<u8>, BoxError> {
    Err(REASON.into())
}
