//! The contract between core and an engine: what an engine implements.

pub(crate) mod application;
pub(crate) mod artifact;
pub(crate) mod drain;
pub(crate) mod entry;
pub(crate) mod exit;
pub(crate) mod limits;
pub(crate) mod outbound;
pub(crate) mod workload;

use serde::de::DeserializeOwned;
use std::cell::Cell;

use crate::engine::application::Applications;
use crate::engine::artifact::{Artifact, Kind};
pub use crate::engine::limits::Limit;
use crate::engine::workload::Workload;

/// An error of any type that the engine chooses.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A WebAssembly engine.
///
/// [`run`](Engine::run) is the only required method.
///
/// Each process that needs the engine builds it, with the same constructor and the same
/// [`Options`]. The long-lived shim process never builds one.
///
/// | process | lives | calls |
/// | --- | --- | --- |
/// | launcher | while one container is created | [`accepts`](Engine::accepts), [`validator`](Engine::validator), [`enforced_limits`](Engine::enforced_limits), [`precompiler`](Engine::precompiler), [`Precompiler::fingerprint`], [`applications`](Engine::applications), [`Applications::format`] |
/// | planner | while one manifest of an application is read, or one program is validated | [`Applications::plan`], [`Validator::validate`] |
/// | compiler | while one artifact is compiled | [`Precompiler::precompile`] |
/// | runner | as long as the guest; the container's PID 1 | [`load`](Engine::load), [`run`](Engine::run) or [`Applications::run`] |
///
/// These processes share no memory. The constructor runs at every create, so it should only store
/// settings. Do expensive work in the method that needs it.
pub trait Engine: Send + Sync + 'static {
    /// Runs the workload to its end.
    ///
    /// Called once, in the runner process, inside the sandbox, with the standard streams connected.
    /// It may block: this process has no other work. An engine that needs an async runtime starts
    /// one here.
    ///
    /// # Errors
    ///
    /// The engine could not run the guest: linking failed, the function is missing, or the engine
    /// itself failed. The task then ends with status 125, and the error and its sources are written
    /// to the container's standard error. A guest that exits with a non-zero code or traps is not
    /// an error: report it through [`Exit`].
    fn run(&self, workload: &Workload) -> Result<Exit, BoxError>;

    /// Loads what the engine needs besides the shared libraries that it is linked to, such as
    /// plug-ins.
    ///
    /// Called before [`run`](Engine::run) in the runner process of a shim
    /// [with libraries](crate::Shim::with_libraries), inside the sandbox. The working directory is
    /// the directory of the libraries. The process leaves that directory afterwards: a library that
    /// is loaded later would come from the image.
    ///
    /// # Errors
    ///
    /// Why the engine cannot run any guest. The task then ends as after an error of `run`.
    fn load(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Decides whether this engine can run the artifact.
    ///
    /// Called in the launcher process, before the sandbox is built, so that `create` fails with the
    /// reason. An artifact from the cache is given as
    /// [`Artifact::Precompiled`](crate::Artifact::Precompiled). Each component of an application is
    /// asked about.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with the reason. By default, core modules are accepted and everything else is
    /// refused.
    fn accepts(&self, artifact: &Artifact) -> Result<(), Refusal> {
        artifact.require(Kind::Module)
    }

    /// Returns what validates modules and components, for an engine without a
    /// [`precompiler`](Engine::precompiler): so that `create` fails with the reason, and not the
    /// container.
    ///
    /// By default nothing is validated.
    fn validator(&self) -> Option<&dyn Validator> {
        None
    }

    /// Declare the limits your engine enforces in [`run`](Engine::run).
    ///
    /// Launcher process. The default is none. A container that sets a limit which is not declared
    /// is refused, so that a limit never goes unenforced. If the engine lacks the feature, such as
    /// sockets, list the limit: it holds trivially.
    fn enforced_limits(&self) -> &[Limit] {
        &[]
    }

    /// Returns the ahead-of-time compiler, if compiled code can be stored and loaded again.
    ///
    /// Called in the launcher process and in the compiler process. By default there is none, and
    /// the runner gets the WebAssembly binary.
    fn precompiler(&self) -> Option<&dyn Precompiler> {
        None
    }

    /// Returns how applications of several components run, if this engine runs any.
    ///
    /// By default there are none, and every guest is one program.
    fn applications(&self) -> Option<&dyn Applications> {
        None
    }
}

/// Validates programs of an engine that does not compile ahead of time. [`Engine::validator`] returns
/// it.
pub trait Validator {
    /// Checks that a module or component is valid.
    ///
    /// Called in the planner process, which has no access to the node's files or network, 256 MiB of
    /// memory and 10 seconds.
    ///
    /// # Errors
    ///
    /// What is not valid.
    fn validate(&self, wasm: &[u8]) -> Result<(), BoxError>;
}

/// Ahead-of-time compilation of one artifact.
pub trait Precompiler {
    /// Returns text that names everything that compiled code depends on: the engine's version, its
    /// compiler settings, the CPU features. When the text changes, earlier output is not loaded.
    ///
    /// Called in the launcher process at every create, so it should be cheap.
    fn fingerprint(&self) -> String;

    /// Compiles one module or component. [`Engine::run`] later gets the output as
    /// [`Artifact::Precompiled`](crate::Artifact::Precompiled).
    ///
    /// Called in the compiler process, which has no access to the node's files or network.
    ///
    /// # Errors
    ///
    /// Why the binary cannot be compiled. `create` fails with it.
    fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError>;
}

/// How a workload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The guest returned or exited with this code. The task's exit status is the code modulo 256.
    Code(i32),
    /// The guest trapped, for this reason. The task's exit status is 134.
    Trap(String),
}

/// Why an engine refuses a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
}

impl Refusal {
    /// Creates a refusal. The client that asked for the container sees the reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// The node's settings for the engine: the `[engine]` table of the runtime options.
///
/// An engine reads them into its own type with [`parse`](Options::parse). If the table has entries
/// and the engine does not read it, `create` fails: a misspelt setting is never ignored.
#[derive(Debug, Default)]
pub struct Options {
    table: serde_json::Map<String, serde_json::Value>,
    read: Cell<bool>,
}

impl Options {
    /// Creates options from a table of names and values.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new(table: serde_json::Map<String, serde_json::Value>) -> Self {
        Self {
            table,
            read: Cell::new(false),
        }
    }

    /// Reads the settings into the engine's own type, which should `deny_unknown_fields`.
    ///
    /// # Errors
    ///
    /// A setting is unknown or has a value of the wrong type. The error names it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, BoxError> {
        self.read.set(true);
        Ok(serde_json::from_value(serde_json::Value::Object(
            self.table.clone(),
        ))?)
    }

    /// The first option, if there are options and the engine did not read them.
    pub(crate) fn unread(&self) -> Option<&str> {
        if self.read.get() {
            None
        } else {
            self.table.keys().next().map(String::as_str)
        }
    }
}
