//! Shimwright with the engines of your choice.
//!
//! This crate is [`shimwright_core`], and behind one feature each the engines that come with it:
//!
//! | feature | engine |
//! | --- | --- |
//! | `wasmedge` | `wasmedge::WasmEdge`: modules with WASI preview 1 and WasmEdge's sockets |
//! | `wasmer` | `wasmer::Wasmer`: modules with WASI preview 1 and WASIX |
//! | `wasmtime` | `wasmtime::Wasmtime`: modules with WASI preview 1, components with WASI 0.2 and 0.3, HTTP handlers |
//!
//! Depend on `shimwright-core` alone to write an engine of your own.

pub use shimwright_core::*;

#[cfg(feature = "wasmedge")]
pub use shimwright_wasmedge as wasmedge;
#[cfg(feature = "wasmer")]
pub use shimwright_wasmer as wasmer;
#[cfg(feature = "wasmtime")]
pub use shimwright_wasmtime as wasmtime;
