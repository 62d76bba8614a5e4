//! Everything that an engine needs for one run.

use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(any(test, feature = "testing"))]
use crate::engine::BoxError;
use crate::engine::Refusal;
use crate::engine::application::Application;
use crate::engine::artifact::Artifact;
use crate::engine::limits::Limits;
use crate::engine::limits::linear_memory::LinearMemory;
use crate::engine::limits::table_elements::TableElements;
use crate::engine::outbound::Outbound;

/// The exported function that is called if the entrypoint names none.
pub const DEFAULT_FUNCTION: &str = "_start";

/// One run of one guest: what to run, and what it may see and use. It is an [`Artifact`], or an
/// [`Application`] for an engine that runs these.
///
/// Core decides the policy: which directories, variables and arguments the guest gets. The engine
/// only translates it.
///
/// The `Debug` form omits arguments and values of variables: they may be secrets.
pub struct Workload<P = Artifact> {
    program: P,
    function: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    preopens: Vec<Preopen>,
    limits: Limits,
    linear_memory: LinearMemory,
    table_elements: TableElements,
}

impl<P: fmt::Debug> fmt::Debug for Workload<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Workload")
            .field("program", &self.program)
            .field("function", &self.function)
            .field("args", &self.args.len())
            .field("env", &names)
            .field("preopens", &self.preopens)
            .finish_non_exhaustive()
    }
}

/// A directory that the guest may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preopen {
    host: PathBuf,
    guest: String,
}

impl Preopen {
    /// Shows the directory `host` to the guest as `guest`.
    ///
    /// The kernel decides whether the guest can write to it: the mount at `host` has the flags of
    /// the OCI mount.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new(host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            guest: guest.into(),
        }
    }

    /// Path of the directory for the runner process, inside the sandbox.
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// Path of the directory for the guest.
    pub fn guest(&self) -> &str {
        &self.guest
    }
}

impl<P> Workload<P> {
    /// Creates a workload that calls [`DEFAULT_FUNCTION`], with the single argument `guest`, no
    /// environment and no preopens.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new(program: P) -> Self {
        Self {
            program,
            function: DEFAULT_FUNCTION.to_owned(),
            args: vec!["guest".to_owned()],
            env: Vec::new(),
            preopens: Vec::new(),
            limits: Limits::default(),
            linear_memory: LinearMemory::default(),
            table_elements: TableElements::default(),
        }
    }

    /// Sets the exported function to call.
    #[must_use]
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn with_function(mut self, function: impl Into<String>) -> Self {
        self.function = function.into();
        self
    }

    /// Sets the arguments; the first is the program's name. Ignores an empty list.
    #[must_use]
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn with_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        if !args.is_empty() {
            self.args = args;
        }
        self
    }

    /// Sets the environment.
    #[must_use]
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn with_env(
        mut self,
        env: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.env = env
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self
    }

    /// Sets the preopened directories.
    #[must_use]
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn with_preopens(mut self, preopens: impl IntoIterator<Item = Preopen>) -> Self {
        self.preopens = preopens.into_iter().collect();
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub(crate) fn with_limits(mut self, limits: Limits) -> Self {
        self.linear_memory = LinearMemory::new(limits.linear_memory);
        self.table_elements = TableElements::new(limits.table_elements);
        self.limits = limits;
        self
    }

    /// Sets one limit by its key in the node's file, to a value as in an annotation.
    ///
    /// # Errors
    ///
    /// There is no such limit, or the text is no value of it.
    #[cfg(any(test, feature = "testing"))]
    #[doc(hidden)]
    pub fn with_limit(mut self, key: &str, value: &str) -> Result<Self, BoxError> {
        let mut limits = std::mem::take(&mut self.limits);
        limits.set(key, value, key)?;
        Ok(self.with_limits(limits))
    }

    /// The name of the exported function to call.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// The guest's arguments. Never empty: the first is the program's name.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// The guest's environment, in the order of the OCI spec.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The directories that the guest may use.
    pub fn preopens(&self) -> &[Preopen] {
        &self.preopens
    }

    /// The limit of the guest's linear memory.
    ///
    /// This and the limits below are set only if the engine declares them in
    /// [`Engine::enforced_limits`](crate::Engine::enforced_limits).
    pub fn linear_memory(&self) -> &LinearMemory {
        &self.linear_memory
    }

    /// The limit of the elements in the guest's tables.
    pub fn table_elements(&self) -> &TableElements {
        &self.table_elements
    }

    /// The largest number of core instances, if limited. A module is one instance; a component can
    /// be many.
    pub fn instances(&self) -> Option<u64> {
        self.limits.instances
    }

    /// The largest stack of the guest's functions in bytes, if limited. An engine whose own bound is
    /// lower keeps that bound.
    pub fn stack(&self) -> Option<u64> {
        self.limits.stack
    }

    /// The destinations that the guest may connect and send to, by any protocol, if limited. What
    /// the guest receives and accepts is not limited.
    pub fn outbound(&self) -> Option<&Outbound> {
        self.limits
            .outbound
            .as_ref()
            .map(|destinations| &destinations.0)
    }

    /// Whether the guest may look up names. It may always use numeric addresses.
    pub fn name_lookup(&self) -> bool {
        self.limits.allows_name_lookup()
    }
}

impl Workload<Artifact> {
    /// What to run.
    pub fn artifact(&self) -> &Artifact {
        &self.program
    }

    /// The WebAssembly binary, for an engine without a [`Precompiler`](crate::Precompiler).
    ///
    /// # Errors
    ///
    /// The artifact is precompiled. Only an engine with a precompiler gets such an artifact.
    pub fn wasm(&self) -> Result<&[u8], Refusal> {
        self.program.wasm()
    }
}

impl Workload<Application> {
    /// What to run. Its components have their own entry points: [`function`](Workload::function) is
    /// the default.
    pub fn application(&self) -> &Application {
        &self.program
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::artifact::Wasm;

    fn workload() -> Workload {
        Workload::new(Artifact::Wasm(
            Wasm::new(b"\0asm\x01\0\0\0".to_vec()).unwrap(),
        ))
    }

    #[test]
    fn arguments_are_never_empty() {
        let none: [&str; 0] = [];
        assert_eq!(workload().with_args(none).args(), ["guest"]);
        assert_eq!(workload().with_args(["a", "b"]).args(), ["a", "b"]);
    }

    #[test]
    fn the_default_function_is_start() {
        assert_eq!(workload().function(), "_start");
        assert_eq!(workload().with_function("fib").function(), "fib");
    }
}
