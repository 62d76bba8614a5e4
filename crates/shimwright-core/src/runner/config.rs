//! The configuration of a runner, which its launcher writes and it reads once.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::BoxError;
use crate::engine::application::{Application, Files, Manifest};
use crate::engine::artifact::{Artifact, Kind, Precompiled, Wasm};
use crate::engine::limits::Limits;
use crate::engine::workload::{Preopen, Workload};
use crate::error::{Context, Error};
use crate::sys;
use crate::sys::memory::Mapping;

/// What a runner is told: everything it needs for one run. It cannot be shown: a guest's arguments
/// and variables may be secrets.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunnerConfig {
    pub(crate) function: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Directories as the runner sees them, and the paths by which the guest finds them.
    pub(crate) preopens: Vec<(PathBuf, String)>,
    pub(crate) load: Load,
    pub(crate) limits: Limits,
    /// The engine's options.
    pub(crate) options: serde_json::Map<String, serde_json::Value>,
}

/// What a runner loads, from inherited descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    Artifact(ArtifactFile),
    Application(ApplicationFiles),
}

/// One artifact.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ArtifactFile {
    descriptor: RawFd,
    /// Its kind if the cache supplied it as native code.
    precompiled: Option<PrecompiledKind>,
}

/// All of an application.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ApplicationFiles {
    /// The descriptor of the manifest with its head.
    pub(crate) manifest: RawFd,
    /// Each with its name.
    pub(crate) components: Vec<(String, ArtifactFile)>,
    /// The descriptor of all other files.
    pub(crate) content: RawFd,
    /// The name and the length of each of these.
    pub(crate) files: Vec<(String, usize)>,
}

impl ArtifactFile {
    /// An artifact in a file that the runner inherits, and its kind if it is native code.
    pub(crate) fn new(file: &impl AsRawFd, precompiled: Option<Kind>) -> Self {
        Self {
            descriptor: file.as_raw_fd(),
            precompiled: precompiled.map(Into::into),
        }
    }

    pub(super) fn open(&self) -> Result<Artifact, BoxError> {
        let file = sys::fd::inherited(self.descriptor)?;
        Ok(match self.precompiled {
            Some(kind) => Artifact::Precompiled(Precompiled::trusted(file, kind.into())),
            None => Artifact::Wasm(Wasm::open(file)?),
        })
    }
}

impl ApplicationFiles {
    pub(super) fn open(&self) -> Result<Application, BoxError> {
        let map = |descriptor| -> Result<Mapping, BoxError> {
            Ok(Mapping::of_file(sys::fd::inherited(descriptor)?.as_fd())?)
        };
        let components = self.components.iter();
        let components = components.map(|(name, file)| Ok((name.clone(), file.open()?)));
        let components: Vec<_> = components.collect::<Result<_, BoxError>>()?;
        Ok(Application::new(
            Manifest::decode(map(self.manifest)?)?,
            components,
            Files::new(map(self.content)?, self.files.iter().cloned())?,
        ))
    }
}

/// [`Kind`] on its way to the runner.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum PrecompiledKind {
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

    /// The workload of what is run.
    pub(super) fn workload<P>(self, program: P) -> Workload<P> {
        let preopens = self.preopens.into_iter();
        Workload::new(program)
            .with_function(self.function)
            .with_args(self.args)
            .with_env(self.env)
            .with_preopens(preopens.map(|(host, guest)| Preopen::new(host, guest)))
            .with_limits(self.limits)
    }

    pub(super) fn read(descriptor: RawFd) -> Result<Self, BoxError> {
        let file = File::from(sys::fd::inherited(descriptor)?);
        Ok(serde_json::from_reader(std::io::BufReader::new(file))?)
    }
}
