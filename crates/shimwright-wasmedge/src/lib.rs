//! The WasmEdge engine: core modules with WASI preview 1 and WasmEdge's sockets.
//!
//! [`WasmEdge`] is all that a shim needs, with the directory of shared libraries that [`LIBRARIES`]
//! names. In a static program, such as the shim itself, the engine knows its options and its
//! [fingerprint](Precompiler::fingerprint) only; running and compiling take the library.

#[cfg(not(linked))]
mod absent;
mod config;
#[cfg(linked)]
mod module;
#[cfg(any(test, linked))]
mod proposals;
#[cfg(linked)]
mod stack;
mod wasm;

use shimwright_core::{BoxError, Engine, Exit, Limit, Options, Precompiler, Workload};

#[cfg(not(linked))]
use crate::absent as module;
use crate::config::Settings;

/// The name of the directory of shared libraries, see
/// [`Shim::with_libraries`](shimwright_core::Shim::with_libraries).
pub const LIBRARIES: &str = concat!("wasmedge-", env!("CARGO_PKG_VERSION"));

/// What to do if that directory is missing.
pub const REMEDY: &str = "`cargo xtask wasmedge` makes that directory";

/// Runs core modules with WasmEdge.
#[derive(Clone, Debug)]
pub struct WasmEdge {
    settings: Settings,
}

impl WasmEdge {
    /// The engine with the options that the crate's README lists.
    ///
    /// # Errors
    ///
    /// The option that is unknown or has an impossible value.
    pub fn new(options: &Options) -> Result<Self, BoxError> {
        Ok(Self {
            settings: options.parse()?,
        })
    }
}

impl Engine for WasmEdge {
    fn run(&self, workload: &Workload) -> Result<Exit, BoxError> {
        module::run(&self.settings, workload)
    }

    fn enforced_limits(&self) -> &[Limit] {
        &[Limit::LinearMemory]
    }

    fn load(&self) -> Result<(), BoxError> {
        module::load(&self.settings)
    }

    fn precompiler(&self) -> Option<&dyn Precompiler> {
        Some(self)
    }
}

impl Precompiler for WasmEdge {
    fn fingerprint(&self) -> String {
        config::fingerprint(&self.settings)
    }

    fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
        module::precompile(&self.settings, &wasm::without_native_code(wasm)?)
    }
}
