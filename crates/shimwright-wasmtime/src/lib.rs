//! The Wasmtime engine: core modules with WASI preview 1, components with WASI 0.2 and 0.3, and
//! components that handle HTTP requests.
//!
//! [`Wasmtime`] is all that a shim needs. What is compiled ahead of time is mapped from its file
//! when it runs, and the compiler is not touched then.

mod component;
mod config;
mod http;
mod limits;
mod module;
mod outgoing;
mod settings;
mod wasi;

use component::{Code, Entry};
use shimwright_core::{
    Artifact, BoxError, Engine, Exit, Kind, Limit, Options, Precompiler, Refusal, Workload,
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
        let kind = workload.artifact().kind();
        let mut config = match workload.artifact() {
            Artifact::Precompiled(_) => config::for_loading(kind)?,
            _ => config::for_compiling_in_place(kind)?,
        };
        limits::limit_stack(&mut config, workload);
        let engine = wasmtime::Engine::new(&config)?;
        match kind {
            Kind::Module => alone(module::run(&engine, workload)),
            Kind::Component => {
                let code = Code::read(workload)?;
                let entry = component::entry(&code.load(&engine)?, workload)?;
                match entry {
                    Entry::Run(run) => {
                        drop(code);
                        shimwright_core::forbid_new_code()?;
                        alone(component::run(&engine, run, workload))
                    }
                    Entry::Serve(handler) => http::serve(&engine, handler, workload, code),
                }
            }
            other => Err(format!("this engine cannot run a {other}").into()),
        }
    }

    fn accepts(&self, _artifact: &Artifact) -> Result<(), Refusal> {
        // Modules and components are all there is.
        Ok(())
    }

    fn enforced_limits(&self) -> &[Limit] {
        &[
            Limit::LinearMemory,
            Limit::TableElements,
            Limit::Instances,
            Limit::Stack,
            Limit::Outbound,
            Limit::NameLookup,
        ]
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
        let kind = Kind::detect(wasm)?;
        let engine = wasmtime::Engine::new(&config::for_compiling(kind)?)?;
        Ok(match kind {
            Kind::Module => engine.precompile_module(wasm)?,
            Kind::Component => engine.precompile_component(wasm)?,
            other => return Err(format!("this engine cannot compile a {other}").into()),
        })
    }
}

/// Runs a guest on this thread, and so its timers and sockets.
fn alone(guest: impl Future<Output = Result<Exit, BoxError>>) -> Result<Exit, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exit = runtime.block_on(guest);
    // A name lookup that the guest did not wait for must not delay its end.
    runtime.shutdown_background();
    exit
}
