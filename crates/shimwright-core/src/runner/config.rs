//! The configuration of a runner, which its launcher writes and it reads once.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::BoxError;
use crate::engine::artifact::Kind;
use crate::engine::limits::Limits;
use crate::error::{Context, Error};
use crate::sys;

/// What a runner is told: everything it needs for one run. It cannot be shown: a guest's arguments
/// and variables may be secrets.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunnerConfig {
    pub(crate) function: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Directories as the runner sees them, and the paths by which the guest finds them.
    pub(crate) preopens: Vec<(PathBuf, String)>,
    /// The inherited descriptor of the artifact.
    pub(crate) artifact: RawFd,
    /// The artifact's kind if the cache supplied it as native code.
    pub(crate) precompiled: Option<PrecompiledKind>,
    pub(crate) limits: Limits,
    /// The engine's options.
    pub(crate) options: serde_json::Map<String, serde_json::Value>,
}

/// [`Kind`] on its way to the runner.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum PrecompiledKind {
    Module,
    Component,
}

impl From<Kind> for PrecompiledKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Module => Self::Module,
            Kind::Component => Self::Component,
        }
    }
}

impl From<PrecompiledKind> for Kind {
    fn from(kind: PrecompiledKind) -> Self {
        match kind {
            PrecompiledKind::Module => Self::Module,
            PrecompiledKind::Component => Self::Component,
        }
    }
}

impl RunnerConfig {
    /// Writes the configuration in memory that can no longer be changed.
    pub(crate) fn write(&self) -> Result<OwnedFd, Error> {
        let write = || -> Result<File, BoxError> {
            let mut file = sys::memory::sealable_memfd(c"config")?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.rewind()?;
            sys::memory::seal(&file)?;
            Ok(file)
        };
        Ok(write().context("write the runner's configuration")?.into())
    }

    pub(super) fn read(descriptor: RawFd) -> Result<Self, BoxError> {
        let file = File::from(sys::fd::inherited(descriptor)?);
        Ok(serde_json::from_reader(std::io::BufReader::new(file))?)
    }
}
