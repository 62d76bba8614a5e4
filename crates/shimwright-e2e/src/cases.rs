//! The tests, one module for each topic, and what a test is.

mod create;
mod daemon;
mod docker;
mod engine;
mod exec;
mod file;
mod give_up;
mod kubernetes;
mod linux;
mod options;
mod pod;
mod program;
mod signal;
mod task;

use shimwright_testenv::containerd::Release;
use shimwright_testenv::error::Result;

use crate::stage::Stage;

/// One behaviour.
pub(crate) struct Case {
    /// What it shows.
    pub(crate) name: &'static str,
    needs: Needs,
    /// Whether it also needs Docker.
    docker: bool,
    pub(crate) run: fn(&mut Stage) -> Result<()>,
}

/// What a case can be run with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Our shims: because of WebAssembly, or because runc's does not do this.
    Ours,
    /// The same, and a containerd that knows layers of WebAssembly.
    WasmLayers,
    /// The same as ours, and a `ctr` with an option for the user.
    UserOption,
    /// The same as ours, and a containerd that asks runtimes what they can do.
    RuntimeFeatures,
    /// Anything that runs containers, also runc.
    AnyRuntime,
}

impl Case {
    const fn new(name: &'static str, needs: Needs, run: fn(&mut Stage) -> Result<()>) -> Self {
        Self {
            name,
            needs,
            docker: false,
            run,
        }
    }

    const fn docker(name: &'static str, needs: Needs, run: fn(&mut Stage) -> Result<()>) -> Self {
        Self {
            name,
            needs,
            docker: true,
            run,
        }
    }

    /// Whether it can be run with our shims, or else with another runtime, on a containerd.
    pub(crate) fn runs_on(&self, release: Release, ours: bool) -> bool {
        let possible = match self.needs {
            Needs::Ours => ours,
            Needs::WasmLayers => ours && release.has_wasm_layers(),
            Needs::UserOption => ours && release.has_user_option(),
            Needs::RuntimeFeatures => ours && release >= Release::V2,
            Needs::AnyRuntime => true,
        };
        possible && (!self.docker || release.has_docker())
    }
}

/// Every case, in the order they run.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    let tables: [&[Case]; 14] = [
        program::CASES,
        engine::CASES,
        create::CASES,
        file::CASES,
        signal::CASES,
        linux::CASES,
        exec::CASES,
        task::CASES,
        options::CASES,
        pod::CASES,
        give_up::CASES,
        daemon::CASES,
        docker::CASES,
        kubernetes::CASES,
    ];
    tables.into_iter().flatten()
}
