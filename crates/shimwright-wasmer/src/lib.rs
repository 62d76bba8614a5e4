//! The Wasmer engine: core modules with WASI preview 1 and WASIX.
//!
//! [`Wasmer`] is all that a shim needs. Modules are compiled with Cranelift, ahead of time; what
//! runs them then has no compiler.

mod config;
mod module;
mod network;
mod prepare;
mod wasi;

use shimwright_core::{BoxError, Engine, Exit, Limit, Options, Precompiler, Workload};

/// Runs core modules with Wasmer.
#[derive(Clone, Copy, Debug)]
pub struct Wasmer;

impl Wasmer {
    /// The engine. It has no options of its own yet.
    ///
    /// # Errors
    ///
    /// None; the type is what [`Shim::new`](shimwright_core::Shim::new) expects.
    pub fn new(_options: &Options) -> Result<Self, BoxError> {
        Ok(Self)
    }
}

impl Engine for Wasmer {
    fn run(&self, workload: &Workload) -> Result<Exit, BoxError> {
        let module = module::load(workload)?;
        shimwright_core::forbid_new_code()?;
        // It drives timers, files and sockets while the guest runs on a thread of its own.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let exit = runtime.block_on(module::run(module, workload));
        // A read from standard input that the guest did not wait for must not delay its end.
        runtime.shutdown_background();
        exit
    }

    fn enforced_limits(&self) -> &[Limit] {
        &[Limit::LinearMemory, Limit::Outbound, Limit::NameLookup]
    }

    fn precompiler(&self) -> Option<&dyn Precompiler> {
        Some(self)
    }
}

impl Precompiler for Wasmer {
    fn fingerprint(&self) -> String {
        config::fingerprint()
    }

    fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
        module::precompile(wasm)
    }
}
