//! The Wasmtime engine: core modules with WASI preview 1, components with WASI 0.2.
//!
//! [`Wasmtime`] is all that a shim needs. What is compiled ahead of time is mapped from its file
//! when it runs, and the compiler is not touched then.

mod component;
mod config;
mod module;
mod wasi;

use shimwright_core::{
    Artifact, BoxError, Engine, Exit, Kind, Options, Precompiler, Refusal, Workload,
};

/// Runs modules and components with Wasmtime.
#[derive(Clone, Copy, Debug)]
pub struct Wasmtime;

impl Wasmtime {
    /// The engine. It has no options of its own yet.
    ///
    /// # Errors
    ///
    /// None; the type is what [`Shim::new`](shimwright_core::Shim::new) expects.
    pub fn new(_options: &Options) -> Result<Self, BoxError> {
        Ok(Self)
    }
}

impl Engine for Wasmtime {
    fn run(&self, workload: &Workload) -> Result<Exit, BoxError> {
        let config = match workload.artifact() {
            Artifact::Precompiled(_) => config::for_loading()?,
            _ => config::for_compiling_in_place()?,
        };
        let engine = wasmtime::Engine::new(&config)?;
        // One thread: the guest runs on it, and so do its timers and sockets.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let exit = match workload.artifact().kind() {
            Kind::Module => runtime.block_on(module::run(&engine, workload)),
            Kind::Component => runtime.block_on(component::run(&engine, workload)),
        };
        // A name lookup that the guest did not wait for must not delay its end.
        runtime.shutdown_background();
        exit
    }

    fn accepts(&self, _workload: &Workload) -> Result<(), Refusal> {
        // Modules and components are all there is.
        Ok(())
    }

    fn precompiler(&self) -> Option<&dyn Precompiler> {
        Some(self)
    }
}

impl Precompiler for Wasmtime {
    fn fingerprint(&self) -> String {
        config::fingerprint()
    }

    fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
        let engine = wasmtime::Engine::new(&config::for_compiling()?)?;
        Ok(match Kind::detect(wasm)? {
            Kind::Module => engine.precompile_module(wasm)?,
            Kind::Component => engine.precompile_component(wasm)?,
        })
    }
}
