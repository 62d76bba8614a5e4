//! The plug-in contract: what an engine does, and nothing about how it is hosted.

pub(crate) mod artifact;
pub(crate) mod drain;
pub(crate) mod exit;
pub(crate) mod limits;
pub(crate) mod outbound;
pub(crate) mod workload;

use serde::de::DeserializeOwned;
use std::cell::Cell;

use crate::engine::artifact::Kind;
pub use crate::engine::limits::Limit;
use crate::engine::workload::Workload;

/// An error whose type is the engine's own business.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A WebAssembly engine.
///
/// Only [`run`](Engine::run) is required.
///
/// A shim builds its engine with the same constructor and the same [`Options`] in each process
/// that needs one, and never in the long-lived shim process:
///
/// | process | lives | calls |
/// | --- | --- | --- |
/// | launcher | while one container is created | [`accepts`](Engine::accepts), [`enforced_limits`](Engine::enforced_limits), [`precompiler`](Engine::precompiler), [`Precompiler::fingerprint`] |
/// | compiler | while one artifact is compiled | [`Precompiler::precompile`] |
/// | runner | as long as the guest; the container's PID 1 | [`load`](Engine::load), [`run`](Engine::run) |
///
/// Nothing built in one of them is seen by another. The constructor runs at every create, so it
/// should only keep settings; what is expensive belongs into the method that needs it.
pub trait Engine: Send + Sync + 'static {
    /// Runs the workload to its end.
    ///
    /// Runner process; called once, inside the sandbox, with standard streams connected.
    /// Blocking is fine, as nothing else happens in this process. An engine that needs an async
    /// runtime starts one here.
    ///
    /// # Errors
    ///
    /// `Err` means that the engine could not run the guest: it failed to link, has no such
    /// function, or broke. The task then ends with status 125 and the error, with its sources,
    /// on the container's standard error. A guest that exits with a non-zero code or traps has
    /// run, and is reported through [`Exit`].
    fn run(&self, workload: &Workload) -> Result<Exit, BoxError>;

    /// Loads what the engine needs besides the shared libraries that it is linked to.
    ///
    /// Runner process of a shim [with libraries](crate::Shim::with_libraries); called before
    /// [`run`](Engine::run), inside the sandbox, while the directory of the libraries is the
    /// working directory. It is left after that, so that a library which is only looked for later
    /// would be the image's.
    ///
    /// # Errors
    ///
    /// Why the engine cannot run any guest. The task then ends as if `run` had said so.
    fn load(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Says whether this engine can run the workload, and if not, why.
    ///
    /// Launcher process; called before the sandbox is built, so that a refusal reaches the
    /// client as the reason why `create` failed. What was compiled earlier, and so accepted, is
    /// given as [`Artifact::Precompiled`](crate::Artifact::Precompiled).
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with the reason. By default core modules are accepted and everything else
    /// is refused.
    fn accepts(&self, workload: &Workload) -> Result<(), Refusal> {
        workload.artifact().require(Kind::Module)
    }

    /// Declare the limits your engine enforces in [`run`](Engine::run).
    ///
    /// Launcher process. The default is none. A container that sets a limit which is not declared
    /// is refused, so that a limit never goes unenforced. If the engine lacks the feature, such as
    /// sockets, list the limit: it holds trivially.
    fn enforced_limits(&self) -> &[Limit] {
        &[]
    }

    /// The ahead-of-time compiler, for engines whose output can be stored and loaded again.
    ///
    /// Launcher and compiler process. By default there is none, and the runner is given the
    /// WebAssembly binary itself.
    fn precompiler(&self) -> Option<&dyn Precompiler> {
        None
    }
}

/// Ahead-of-time compilation of one artifact.
pub trait Precompiler {
    /// Text that changes whenever earlier output must not be loaded any more: the engine's
    /// version, its compiler settings, the CPU features it used.
    ///
    /// Launcher process, at every create: it should not build an engine.
    fn fingerprint(&self) -> String;

    /// Compiles one module or component to what [`Engine::run`] later finds as
    /// [`Artifact::Precompiled`](crate::Artifact::Precompiled).
    ///
    /// Compiler process, which has no access to the node's files and network.
    ///
    /// # Errors
    ///
    /// The reason why `create` fails, such as an invalid module.
    fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError>;
}

/// How a workload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// The guest returned, or asked to exit with this code. The task's exit status is the code
    /// modulo 256.
    Code(i32),
    /// The guest trapped; the text says why. The task's exit status is 134.
    Trap(String),
}

/// Why an engine will not run a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
}

impl Refusal {
    /// A refusal; `reason` is shown to whoever asked for the container.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// The node's settings for an engine: the `[engine]` table of the runtime options.
///
/// An engine reads them with [`parse`](Options::parse) into a type of its own. Options that no
/// one reads fail the create, so a misspelt setting never passes silently.
#[derive(Debug, Default)]
pub struct Options {
    table: serde_json::Map<String, serde_json::Value>,
    read: Cell<bool>,
}

impl Options {
    /// Options from a table of names and values.
    pub fn new(table: serde_json::Map<String, serde_json::Value>) -> Self {
        Self {
            table,
            read: Cell::new(false),
        }
    }

    /// The settings as the engine's own type, which should `deny_unknown_fields`.
    ///
    /// # Errors
    ///
    /// The name of the setting that is unknown or has a value of the wrong type.
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
