//! Signals end guests, whatever they are doing.

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Context, Result};

use super::{Case, Needs};
use crate::stage::{Container, PROMPT, Stage, check};

pub(crate) const CASES: &[Case] = &[
    Case::new("SIGTERM ends a busy loop", Needs::Ours, |stage| {
        let container = stage.guest("spin");
        ends_with(&container, stage, "spinning\n", "SIGTERM", 143)
    }),
    Case::new("SIGTERM ends an idle guest", Needs::Ours, |stage| {
        let container = stage.guest("idle");
        ends_with(&container, stage, "ready\n", "SIGTERM", 143)
    }),
    Case::new("SIGKILL ends a busy loop", Needs::Ours, |stage| {
        let container = stage.guest("spin");
        ends_with(&container, stage, "spinning\n", "SIGKILL", 137)
    }),
    Case::new(
        "SIGTERM ends a busy loop on every engine that compiles",
        Needs::Ours,
        |stage| on_every_compiler(stage, "SIGTERM", 143),
    ),
    Case::new(
        "SIGKILL ends a busy loop on every engine that compiles",
        Needs::Ours,
        |stage| on_every_compiler(stage, "SIGKILL", 137),
    ),
    Case::new("SIGKILL ends an idle program", Needs::AnyRuntime, |stage| {
        let container = stage.idle();
        ends_with(&container, stage, "ready\n", "SIGKILL", 137)
    }),
    Case::new(
        "SIGINT ends an interpreted busy loop",
        Needs::Ours,
        |stage| {
            let container = stage.guest("spin").on("io.containerd.wasmi.v1");
            ends_with(&container, stage, "spinning\n", "SIGINT", 130)
        },
    ),
];

fn on_every_compiler(stage: &mut Stage, signal: &str, code: i32) -> Result<()> {
    for engine in shimwright_engines::ALL
        .iter()
        .filter(|engine| engine.compiles())
    {
        let container = stage.guest("spin").on(engine.runtime);
        let ended = ends_with(&container, stage, "spinning\n", signal, code);
        ended.context(format_args!("end a guest of {}", engine.title))?;
    }
    Ok(())
}

fn ends_with(
    container: &Container,
    stage: &Stage,
    output: &str,
    signal: &str,
    code: i32,
) -> Result<()> {
    let mut ctr = container.spawn(stage)?;
    ctr.wait_for_output(output, SHORT)?;
    stage.kill(container.id(), signal)?;
    check(&ctr.finish(PROMPT)?, code, output)
}
