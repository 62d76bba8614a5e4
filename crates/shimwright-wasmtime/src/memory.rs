//! Holds a guest to the linear memory it may have.

use shimwright_core::LinearMemory;
use wasmtime::ResourceLimiter;

/// A guest's account, asked by Wasmtime.
pub(crate) struct Limiter(LinearMemory);

impl Limiter {
    pub(crate) fn new(memory: &LinearMemory) -> Self {
        Self(memory.clone())
    }
}

impl ResourceLimiter for Limiter {
    /// An error here is a trap, with the reason that `false` would not give.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The module's own limit, which it knows how to live with.
            return Ok(false);
        }
        self.0.grow(current as u64, desired as u64)?;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}
