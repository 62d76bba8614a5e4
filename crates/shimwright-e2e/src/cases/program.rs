//! Programs: their output, exit codes, arguments and environment.

use shimwright_testenv::error::{Result, ensure};

use super::{Case, Needs};
use crate::stage::{self, COMPONENT, Stage, check, check_failure};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "the shim is accepted without a complaint",
        Needs::AnyRuntime,
        accepted,
    ),
    Case::new("a module prints", Needs::Ours, module),
    Case::new("a component prints", Needs::Ours, component),
    Case::new(
        "an image of platform wasi/wasm runs",
        Needs::Ours,
        wasi_platform,
    ),
    Case::new(
        "a module that is a Wasm layer runs",
        Needs::WasmLayers,
        layer_module,
    ),
    Case::new(
        "a component that is a Wasm layer runs",
        Needs::WasmLayers,
        layer_component,
    ),
    Case::new("a shim is found by its path", Needs::Ours, by_path),
    Case::new(
        "a shim with an interpreter runs a module",
        Needs::Ours,
        interpreter,
    ),
    Case::new(
        "an application of two components runs",
        Needs::Ours,
        application,
    ),
    Case::new(
        "an application whose parts are layers runs",
        Needs::WasmLayers,
        layer_application,
    ),
    Case::new("a guest sees its arguments", Needs::Ours, arguments),
    Case::new("a guest sees its environment", Needs::Ours, environment),
    Case::new(
        "a guest's stdout and stderr stay apart",
        Needs::Ours,
        streams,
    ),
    Case::new(
        "the exit code of a container is its program's",
        Needs::AnyRuntime,
        exit_code,
    ),
    Case::new("a trap is 134 with a reason", Needs::Ours, trap),
    Case::new(
        "a missing import is 125 with a reason",
        Needs::Ours,
        missing_import,
    ),
    Case::new(
        "a function that the entrypoint names is called",
        Needs::Ours,
        function,
    ),
];

const HELLO: &str = "Hello from Wasm\n";

fn accepted(stage: &mut Stage) -> Result<()> {
    check(&stage.exits_with("0").run(stage)?, 0, "")?;
    let log = stage.containerd().log();
    let complaint = log.lines().find(|line| line.contains("level=error"));
    ensure!(
        complaint.is_none(),
        "containerd complains: {}",
        complaint.unwrap_or_default()
    );
    Ok(())
}

fn module(stage: &mut Stage) -> Result<()> {
    check(&stage.guest("hello").run(stage)?, 0, HELLO)
}

fn component(stage: &mut Stage) -> Result<()> {
    check(&stage.guest(COMPONENT).run(stage)?, 0, HELLO)
}

fn wasi_platform(stage: &mut Stage) -> Result<()> {
    let container = stage
        .image(stage::GUESTS_WASI)
        .option(&["--platform", "wasi/wasm"]);
    check(&container.run(stage)?, 0, HELLO)
}

fn layer_module(stage: &mut Stage) -> Result<()> {
    let container = stage
        .image(stage::LAYER_MODULE)
        .option(&["--platform", "wasi/wasm"]);
    check(&container.run(stage)?, 0, HELLO)
}

fn layer_component(stage: &mut Stage) -> Result<()> {
    let container = stage
        .image(stage::LAYER_COMPONENT)
        .option(&["--platform", "wasi/wasm"]);
    check(&container.run(stage)?, 0, HELLO)
}

fn by_path(stage: &mut Stage) -> Result<()> {
    let shim = stage
        .containerd()
        .shim("containerd-shim-wasmi-v1")
        .display()
        .to_string();
    check(&stage.guest("hello").on(&shim).run(stage)?, 0, HELLO)
}

fn interpreter(stage: &mut Stage) -> Result<()> {
    check(
        &stage
            .guest("hello")
            .on("io.containerd.wasmi.v1")
            .run(stage)?,
        0,
        HELLO,
    )
}

const PIPELINE_RUNTIME: &str = "io.containerd.pipeline.v1";
const COPIED: &str = "Hello from Wasm\n<end of input>\n";

fn application(stage: &mut Stage) -> Result<()> {
    let container = stage.image(stage::PIPELINE).on(PIPELINE_RUNTIME);
    check(&container.run(stage)?, 0, COPIED)
}

fn layer_application(stage: &mut Stage) -> Result<()> {
    let container = stage.image(stage::LAYER_PIPELINE).on(PIPELINE_RUNTIME);
    let container = container.option(&["--platform", "wasi/wasm"]);
    check(&container.run(stage)?, 0, COPIED)
}

fn arguments(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("args").args(&["one", "two words", ""]);
    check(&container.run(stage)?, 0, "/args.wasm\none\ntwo words\n\n")
}

fn environment(stage: &mut Stage) -> Result<()> {
    let container = stage
        .guest("env")
        .option(&["--env", "FIRST=1", "--env", "EMPTY="]);
    let finished = container.run(stage)?;
    // `ctr` adds a PATH of its own.
    let own: Vec<_> = finished
        .stdout
        .lines()
        .filter(|line| !line.starts_with("PATH="))
        .collect();
    ensure!(
        finished.code == 0 && own == ["FIRST=1", "EMPTY=", "HOME=/"],
        "the guest has {finished:?}"
    );
    Ok(())
}

fn streams(stage: &mut Stage) -> Result<()> {
    let finished = stage.guest("streams").run(stage)?;
    check(&finished, 0, "to standard output")?;
    check_failure(&finished, 0, &["to standard error"])
}

fn exit_code(stage: &mut Stage) -> Result<()> {
    check(&stage.exits_with("3").run(stage)?, 3, "")
}

fn trap(stage: &mut Stage) -> Result<()> {
    check_failure(&stage.guest("trap").run(stage)?, 134, &["unreachable"])
}

fn missing_import(stage: &mut Stage) -> Result<()> {
    check_failure(
        &stage.guest("missing-import").run(stage)?,
        125,
        &["nowhere", "absent"],
    )
}

fn function(stage: &mut Stage) -> Result<()> {
    check(&stage.guest("reactor#greet").run(stage)?, 0, "greetings\n")
}
