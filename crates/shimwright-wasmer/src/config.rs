//! The options of a node, and the one place that configures Wasmer: what is compiled with one of
//! these engines can be loaded with the other.

use std::num::NonZero;
use std::ptr::NonNull;

use shimwright_core::LinearMemory;
use wasmer::sys::vm::{VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition};
use wasmer::sys::{
    BaseTunables, CpuFeature, Cranelift, EngineBuilder, NativeEngineExt, Target, Tunables,
};
use wasmer::{Engine, MemoryError, MemoryStyle, MemoryType, Pages, TableStyle, TableType};

/// An engine for a process that only compiles.
pub(crate) fn for_compiling() -> Engine {
    EngineBuilder::new(compiler()).engine().into()
}

/// An engine for a process that compiles a guest and then runs it.
pub(crate) fn for_compiling_in_place(memory: &LinearMemory) -> Engine {
    let mut compiler = compiler();
    // The compiler's threads would stay as long as the guest.
    compiler.num_threads(NonZero::<usize>::MIN);
    limited(EngineBuilder::new(compiler).engine().into(), memory)
}

/// An engine for a process that runs what another one compiled.
pub(crate) fn for_loading(memory: &LinearMemory) -> Engine {
    limited(EngineBuilder::headless().engine().into(), memory)
}

/// Names everything that compiled code depends on. Needs no engine, as it is asked for at every
/// create.
pub(crate) fn fingerprint() -> String {
    let mut compiler = compiler();
    // Threads decide nothing but how long it takes.
    compiler.num_threads(NonZero::<usize>::MIN);
    format!(
        "wasmer {}; prepared {}; {} {}; {:?}; {compiler:?}",
        wasmer_types::VERSION,
        crate::prepare::VERSION,
        std::env::consts::ARCH,
        std::env::consts::OS,
        CpuFeature::for_host(),
    )
}

fn compiler() -> Cranelift {
    Cranelift::new()
}

fn limited(mut engine: Engine, memory: &LinearMemory) -> Engine {
    if let Some(pages) = memory.limit_in_pages() {
        engine.set_tunables(Limited {
            base: BaseTunables::for_target(&Target::default()),
            account: memory.clone(),
            most: Pages(pages),
        });
    }
    engine
}

/// Wasmer's own choices, with a limit for the guest's memory.
struct Limited {
    base: BaseTunables,
    account: LinearMemory,
    most: Pages,
}

impl Limited {
    /// The memory that is created where `asked` is declared.
    fn limit(&self, asked: &MemoryType) -> Result<MemoryType, MemoryError> {
        // Wasmer has modules with one memory only, so a limit of each is one of all.
        self.account
            .check_pages(asked.minimum.0.into())
            .map_err(|exceeded| MemoryError::Generic(exceeded.to_string()))?;
        let maximum = asked.maximum.unwrap_or(self.most);
        Ok(MemoryType {
            maximum: Some(maximum.min(self.most)),
            ..*asked
        })
    }
}

impl Tunables for Limited {
    fn memory_style(&self, memory: &MemoryType) -> MemoryStyle {
        self.base.memory_style(memory)
    }

    fn table_style(&self, table: &TableType) -> TableStyle {
        self.base.table_style(table)
    }

    fn create_host_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
    ) -> Result<VMMemory, MemoryError> {
        self.base.create_host_memory(&self.limit(ty)?, style)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn create_vm_memory(
        &self,
        ty: &MemoryType,
        style: &MemoryStyle,
        location: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        let ty = self.limit(ty)?;
        // SAFETY: the caller vouches for the location, which is passed on as it is.
        unsafe { self.base.create_vm_memory(&ty, style, location) }
    }

    fn create_host_table(&self, ty: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(ty, style)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn create_vm_table(
        &self,
        ty: &TableType,
        style: &TableStyle,
        location: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: the caller vouches for the location, which is passed on as it is.
        unsafe { self.base.create_vm_table(ty, style, location) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_names_version_target_and_settings() {
        let fingerprint = fingerprint();
        for part in [
            wasmer_types::VERSION,
            std::env::consts::ARCH,
            "enable_nan_canonicalization",
        ] {
            assert!(fingerprint.contains(part), "{part} is not in {fingerprint}");
        }
    }
}
