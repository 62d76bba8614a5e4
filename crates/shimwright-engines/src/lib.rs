//! The table of engines: what is built, tested, measured and installed here.
//!
//! `cargo xtask`, the end-to-end tests, the tests of the shims and the benchmarks read it. To add an
//! engine, write its crate and add a row to [`with_engines`]; `cargo xtask tidy` checks the row.
//!
//! ```no_run
//! let engine = shimwright_engines::by_name("wasmtime").expect("a row");
//! assert_eq!(engine.shim, "containerd-shim-wasmtime-v1");
//! assert_eq!(engine.runtime, "io.containerd.wasmtime.v1");
//! ```

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its name in commands, and in those of its shim and its runtime.
    pub name: &'static str,
    /// The executable of its shim.
    pub shim: &'static str,
    /// What containerd calls the shim.
    pub runtime: &'static str,
    /// What it does with a module.
    pub execution: Execution,
    /// Its name in documents.
    pub title: &'static str,
    /// The package of its crate, which has the shim.
    pub package: &'static str,
    /// Whether it is an example: it runs in all suites, and is not installed.
    pub is_example: bool,
    /// Whether it runs components.
    pub has_components: bool,
    /// Whether its shim needs a directory of shared libraries beside it.
    pub has_libraries: bool,
    /// Packages of the engine itself, on which core must not depend.
    pub upstream: &'static [&'static str],
    /// The limits that it enforces itself, by their names in the node's configuration.
    pub limits: &'static [&'static str],
    /// Cases of the conformance suite that it is known not to pass and that its shim shows too.
    pub gaps: &'static [&'static str],
    /// Options with which it compiles a large program in seconds, if it does not without.
    pub fast_compilation: Option<&'static str>,
    /// The most that its shim may have in the release profile, in MiB of its file: a twentieth more
    /// than it had when the number was written.
    pub budget: u64,
}

/// What an engine does with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// It compiles native code ahead of time, which is cached.
    Compiled,
    /// It interprets.
    Interpreted,
}

impl Engine {
    /// Whether it compiles native code ahead of time.
    pub fn compiles(&self) -> bool {
        self.execution == Execution::Compiled
    }

    /// Whether this case of the conformance suite is among its gaps.
    pub fn has_gap(&self, case: &str) -> bool {
        self.gaps.contains(&case)
    }
}

/// Calls a macro by its path with something of its own, in brackets, and then every row: a name, an
/// [`Execution`], and the other fields in braces.
///
/// Tests use it that need an item for each engine; everybody else uses [`ALL`].
#[macro_export]
macro_rules! with_engines {
    ($($callback:ident)::+; $($own:tt)*) => {
        $($callback)::+! {
            [$($own)*]

            // The first is the one that demonstrations and benchmarks run.
            wasmtime Compiled {
                title: "Wasmtime",
                package: "shimwright-wasmtime",
                is_example: false,
                has_components: true,
                has_libraries: false,
                upstream: &["wasmtime", "wasmtime-wasi"],
                limits: &[
                    "linear_memory",
                    "table_elements",
                    "instances",
                    "stack",
                    "outbound",
                    "name_lookup",
                ],
                gaps: &[],
                fast_compilation: None,
                budget: 49,
            }
            wasmer Compiled {
                title: "Wasmer",
                package: "shimwright-wasmer",
                is_example: false,
                has_components: false,
                has_libraries: false,
                upstream: &["wasmer"],
                limits: &["linear_memory", "outbound", "name_lookup"],
                gaps: &["linear_memory_traps_at_its_limit"],
                fast_compilation: None,
                budget: 53,
            }
            wasmedge Compiled {
                title: "WasmEdge",
                package: "shimwright-wasmedge",
                is_example: false,
                has_components: false,
                has_libraries: true,
                upstream: &["wasmedge-sdk", "wasmedge-sys"],
                limits: &["linear_memory"],
                gaps: &["linear_memory_traps_at_its_limit"],
                // Ruby takes LLVM six minutes otherwise.
                fast_compilation: Some("[engine]\noptimization = 'O0'\n"),
                budget: 20,
            }
            wasmi Interpreted {
                title: "wasmi",
                package: "wasmi-shim",
                is_example: true,
                has_components: false,
                has_libraries: false,
                upstream: &["wasmi"],
                // Its guests have no network.
                limits: &["outbound", "name_lookup"],
                gaps: &["exit_code_wraps"],
                fast_compilation: None,
                budget: 25,
            }
        }
    };
}

macro_rules! table {
    ([] $($name:ident $execution:ident { $($field:ident: $value:expr,)* })*) => {
        /// Every engine.
        pub const ALL: &[Engine] = &[$(Engine {
            name: stringify!($name),
            shim: concat!("containerd-shim-", stringify!($name), "-v1"),
            runtime: concat!("io.containerd.", stringify!($name), ".v1"),
            execution: Execution::$execution,
            $($field: $value,)*
        }),*];
    };
}
with_engines!(table;);

/// The engine of demonstrations and benchmarks.
pub const DEFAULT: Engine = ALL[0];

/// The engines that are installed.
pub fn installed() -> impl Iterator<Item = &'static Engine> {
    ALL.iter().filter(|engine| !engine.is_example)
}

/// The engine with this name.
pub fn by_name(name: &str) -> Option<&'static Engine> {
    ALL.iter().find(|engine| engine.name == name)
}

/// The engine whose shim has this name.
pub fn by_shim(shim: &str) -> Option<&'static Engine> {
    ALL.iter().find(|engine| engine.shim == shim)
}

/// The executables of all shims.
pub fn shims() -> Vec<&'static str> {
    ALL.iter().map(|engine| engine.shim).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_row_names_its_shim_and_its_runtime() {
        let engine = by_name("wasmtime").unwrap();
        assert_eq!(engine.shim, "containerd-shim-wasmtime-v1");
        assert_eq!(engine.runtime, "io.containerd.wasmtime.v1");
        assert_eq!(by_shim(engine.shim), Some(engine));
    }
}
