//! What cannot run is refused when it is created, with the reason for whoever asked.

use shimwright_testenv::error::Result;

use super::{Case, Needs};
use crate::stage::{COMPONENT, Container, Stage, check_failure};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a missing entrypoint is refused",
        Needs::AnyRuntime,
        missing_entrypoint,
    ),
    Case::new("a text file is refused", Needs::Ours, text_file),
    Case::new(
        "a component on an engine without them is refused",
        Needs::Ours,
        component,
    ),
    Case::new(
        "a refused id can be used again",
        Needs::AnyRuntime,
        id_again,
    ),
];

/// What containerd puts in front of the shim's reason when `create` fails.
const AT_CREATE: &str = "failed to create shim task";

fn refused(container: &Container, stage: &Stage, reason: &str) -> Result<()> {
    check_failure(&container.run(stage)?, 1, &[AT_CREATE, reason])
}

fn missing_entrypoint(stage: &mut Stage) -> Result<()> {
    refused(
        &stage.exits_with("0").program("/missing.wasm"),
        stage,
        "/missing.wasm",
    )
}

fn text_file(stage: &mut Stage) -> Result<()> {
    refused(
        &stage.guest("hello").program("/text.txt"),
        stage,
        "/text.txt",
    )
}

fn component(stage: &mut Stage) -> Result<()> {
    let container = stage.guest(COMPONENT).on("io.containerd.wasmi.v1");
    refused(&container, stage, "runs a core module, not a component")
}

fn id_again(stage: &mut Stage) -> Result<()> {
    let container = stage.exits_with("4");
    let refused = container.clone().program("/missing.wasm").run(stage)?;
    check_failure(&refused, 1, &[AT_CREATE])?;
    check_failure(&container.run(stage)?, 4, &[])
}
