//! The options of a node, and the one place that configures Wasmer: what is compiled with one of
//! these engines can be loaded with the other.

use std::num::NonZero;
use std::ptr::NonNull;

use serde::Deserialize;
use wasmer::sys::vm::{VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition};
use wasmer::sys::{
    BaseTunables, CpuFeature, Cranelift, EngineBuilder, NativeEngineExt, Target, Tunables,
};
use wasmer::{Engine, MemoryError, MemoryStyle, MemoryType, Pages, TableStyle, TableType};

/// The `[engine]` table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// How much memory a guest may have, in pages of 64 KiB.
    max_memory_pages: Option<u32>,
}

/// An engine for a process that only compiles.
pub(crate) fn for_compiling() -> Engine {
    EngineBuilder::new(compiler()).engine().into()
}

/// An engine for a process that compiles a guest and then runs it.
pub(crate) fn for_compiling_in_place(settings: &Settings) -> Engine {
    let mut compiler = compiler();
    // The compiler's threads would stay as long as the guest.
    compiler.num_threads(NonZero::<usize>::MIN);
    limited(EngineBuilder::new(compiler).engine().into(), settings)
}

/// An engine for a process that runs what another one compiled.
pub(crate) fn for_loading(settings: &Settings) -> Engine {
    limited(EngineBuilder::headless().engine().into(), settings)
}

/// Names everything that compiled code depends on. Needs no engine, as it is asked for at every
/// create.
pub(crate) fn fingerprint() -> String {
    let mut compiler = compiler();
    // Threads decide nothing but how long it takes.
    compiler.num_threads(NonZero::<usize>::MIN);
    format!(
        "wasmer {}; {} {}; {:?}; {compiler:?}",
        wasmer_types::VERSION,
        std::env::consts::ARCH,
        std::env::consts::OS,
        CpuFeature::for_host(),
    )
}

fn compiler() -> Cranelift {
    Cranelift::new()
}

fn limited(mut engine: Engine, settings: &Settings) -> Engine {
    if let Some(pages) = settings.max_memory_pages {
        engine.set_tunables(Limited {
            base: BaseTunables::for_target(&Target::default()),
            max_memory: Pages(pages),
        });
    }
    engine
}

/// Wasmer's own choices, with a limit for each memory.
struct Limited {
    base: BaseTunables,
    max_memory: Pages,
}

impl Limited {
    /// The memory that is created where `asked` is declared.
    fn limit(&self, asked: &MemoryType) -> Result<MemoryType, MemoryError> {
        if asked.minimum > self.max_memory {
            return Err(MemoryError::Generic(format!(
                "the guest needs {} pages of memory, but the node's limit is {}",
                asked.minimum.0, self.max_memory.0
            )));
        }
        let maximum = asked.maximum.unwrap_or(self.max_memory);
        Ok(MemoryType {
            maximum: Some(maximum.min(self.max_memory)),
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

    #[test]
    fn unknown_options_are_refused() {
        let parse = |text: &str| {
            let table = serde_json::from_str(text).unwrap();
            shimwright_core::Options::new(table).parse::<Settings>()
        };
        let limited = Settings {
            max_memory_pages: Some(16),
        };
        assert_eq!(parse("{}").unwrap(), Settings::default());
        assert_eq!(parse(r#"{"max_memory_pages": 16}"#).unwrap(), limited);
        assert!(parse(r#"{"max_memory_pages": -1}"#).is_err());
        assert!(parse(r#"{"max_memory": 16}"#).is_err());
    }
}
