//! What a process of a container executes: the engine with a module, or a program of the image.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::{Mount, Process, Spec};

use super::application::{self, Loaded};
use super::artifact::{Code, Loader, Source};
use super::entrypoint::{self, Entrypoint, Program as Found};
use super::executor::{Exec, Target, c_strings};
use crate::cgroup::Cgroups;
use crate::code::application::LayerTypes;
use crate::code::cache::Cache;
use crate::code::content::{Fetching, Found as InImage, Store};
use crate::config::node;
use crate::config::options::RuntimeOptions;
use crate::config::record::{ContainerKind, EngineMetrics};
use crate::engine::Engine;
use crate::engine::application::{ApplicationFormat, Applications};
use crate::engine::limits::Limits;
use crate::engine::workload::DEFAULT_FUNCTION;
use crate::error::{Context, Error};
use crate::policy;
use crate::runner::config::{ArtifactFile, Load};
use crate::runner::host::Host;
use crate::runner::libraries::Program;
use crate::runner::{self, RunnerConfig};

/// The fields of the spec with a process's arguments and variables.
const ARGS: &str = "process.args";
const ENV: &str = "process.env";

/// Finds programs for one container. Launcher process.
#[derive(Debug)]
pub(crate) struct Programs<'a> {
    pub(crate) host: &'a Host,
    /// The container's id, by which its image is found.
    pub(crate) id: &'a str,
    pub(crate) options: &'a RuntimeOptions,
    pub(crate) store: &'a Store,
    /// The options of the overlay that is the root file system, if they are known.
    pub(crate) overlay: &'a [String],
    /// See [`Exec::shim_alive`].
    pub(crate) shim_alive: Arc<OwnedFd>,
    /// The read end of a pipe, hung up when the client has gone, or the shim.
    pub(crate) wanted: &'a OwnedFd,
}

impl Programs<'_> {
    /// What `process` is to execute, in the root file system at `root`, with `mounts` that are
    /// still to be made in it. `spec` is the container's, which may narrow a guest's limits.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Refused` with the reason why there is nothing that can be executed.
    pub(crate) fn find(
        &self,
        root: &Path,
        mounts: &[Mount],
        process: &Process,
        joins: Option<ContainerKind>,
        spec: &Spec,
    ) -> Result<Exec, Error> {
        let found = entrypoint::find(root, mounts, process);
        match &found {
            Ok(Some((_, Found::Linux(path)))) => return self.linux(path, process),
            Ok(None) if joins == Some(ContainerKind::Linux) => {
                return Err(Error::invalid(format!(
                    "no such file or directory: {} is not in the root file system",
                    first_argument(process)
                )));
            }
            _ => {}
        }
        let guest = Guest::new(self, spec)?;
        let format = guest.engine.applications().map(Applications::format);
        let place = application::Root { path: root, mounts };
        // An application is a container's first process: another one of it would be in its way.
        if joins.is_none()
            && let Some(format) = format
            && let Some(found) = application::Found::in_root(place, format)?
        {
            return self.application(&guest, found, process);
        }
        if let Some((entrypoint, Found::Wasm(file))) = found? {
            return self.wasm(&guest, entrypoint, Source::File(file, root), process);
        }
        match self.image(process, format.unwrap_or_default())? {
            InImage::Layer(layer) => {
                let entrypoint = Entrypoint::parse(first_argument(process));
                self.wasm(&guest, entrypoint, Source::Layer(layer), process)
            }
            InImage::Application(image) if joins.is_none() => {
                let found = application::Found::in_image(place, image);
                self.application(&guest, found, process)
            }
            other => Err(nothing(process, &other)),
        }
    }

    /// A program of the image runs as in any container.
    fn linux(&self, path: &Path, process: &Process) -> Result<Exec, Error> {
        let args = process.args().as_deref().unwrap_or_default();
        let path = path.to_string_lossy().into_owned();
        let path = c_strings(ARGS, &[path])?.remove(0);
        Ok(Exec {
            target: Target::Linux { path },
            args: c_strings(ARGS, args)?,
            limits: Limits::default(),
            env: c_strings(ENV, process.env().as_deref().unwrap_or_default())?,
            shim_alive: Arc::clone(&self.shim_alive),
            controls_terminal: false,
            failure: None,
            figures: None,
        })
    }

    /// The file is not in the root: an image may hold its module, or an application, as layers.
    fn image(&self, process: &Process, format: ApplicationFormat) -> Result<InImage, Error> {
        let argument = first_argument(process);
        let node = node::Config::read()?;
        let empty = Cache::open()?.empty_directory();
        let fetching = Fetching {
            config: node.compile(),
            cgroups: Cgroups::default(),
            empty: &empty,
            wanted: self.wanted.as_fd(),
        };
        let types = LayerTypes::of(format);
        let found = self.store.find(self.id, &types, &fetching);
        found.with_context(|| {
            format!(
                "find the entrypoint {argument}: there is no such file in the root file system, \
                 and the image of container {} cannot be looked at",
                self.id
            )
        })
    }

    fn application(
        &self,
        guest: &Guest,
        mut found: application::Found<'_>,
        process: &Process,
    ) -> Result<Exec, Error> {
        let env = policy::env(process, &guest.limits);
        let Loaded {
            load,
            inherited,
            figures,
        } = found.load(&guest.loader(self), env.clone())?;
        let args = process.args().clone().unwrap_or_default();
        let config = RunnerConfig {
            function: DEFAULT_FUNCTION.to_owned(),
            args,
            env,
            preopens: policy::preopens(),
            load,
            limits: guest.limits.clone(),
            options: self.options.engine.clone(),
        };
        self.runner(&config, inherited, figures)
    }

    fn wasm(
        &self,
        guest: &Guest,
        entrypoint: Entrypoint,
        source: Source<'_>,
        process: &Process,
    ) -> Result<Exec, Error> {
        let code = guest.loader(self).load(source);
        let Code {
            artifact,
            precompiled,
            figures,
        } = code.map_err(|error| match error {
            Error::Invalid { what } => Error::invalid(format!("{}: {what}", entrypoint.path)),
            other => other,
        })?;
        let mut args = process.args().clone().unwrap_or_default();
        if let Some(first) = args.first_mut() {
            *first = entrypoint.path;
        }
        let config = RunnerConfig {
            function: entrypoint.function,
            args,
            env: policy::env(process, &guest.limits),
            preopens: policy::preopens(),
            load: Load::Artifact(ArtifactFile::new(&artifact, precompiled)),
            limits: guest.limits.clone(),
            options: self.options.engine.clone(),
        };
        self.runner(&config, vec![artifact.into()], figures)
    }

    /// A runner that finds these descriptors open.
    fn runner(
        &self,
        config: &RunnerConfig,
        inherited: Vec<OwnedFd>,
        figures: EngineMetrics,
    ) -> Result<Exec, Error> {
        let written = config.write()?;
        let env = c_strings(ENV, &[runner::environment(&written)])?;
        let inherited = inherited.into_iter().chain([written]).map(Arc::new);
        Ok(Exec {
            env,
            target: Target::Runner {
                program: Arc::new(Program::of(self.host)?),
                inherited: inherited.collect(),
            },
            args: c_strings(ARGS, &runner::shown(&config.args))?,
            limits: config.limits.clone(),
            shim_alive: Arc::clone(&self.shim_alive),
            controls_terminal: false,
            failure: None,
            figures: Some(figures),
        })
    }
}

/// The engine of a guest, and what it is held to.
struct Guest {
    engine: Box<dyn Engine>,
    limits: Limits,
    node: node::Config,
}

impl Guest {
    fn new(programs: &Programs<'_>, spec: &Spec) -> Result<Self, Error> {
        let node = node::Config::read()?;
        Ok(Self {
            limits: node.limits(programs.options)?.narrow_for(spec)?,
            engine: programs.host.engine(&programs.options.engine())?,
            node,
        })
    }

    fn loader<'a>(&'a self, programs: &'a Programs<'_>) -> Loader<'a> {
        Loader {
            programs,
            engine: &*self.engine,
            limits: &self.limits,
            node: &self.node,
        }
    }
}

/// Why nothing can be executed, if it is neither in the root file system nor in the image.
fn nothing(process: &Process, found: &InImage) -> Error {
    let argument = first_argument(process);
    let image = match found {
        InImage::Application(_) => {
            "the image is an application, which only a container's first process runs"
        }
        _ => "the image has no WebAssembly layer",
    };
    Error::invalid(format!(
        "no such file or directory: the entrypoint {argument} is not in the root file system, and \
         {image}"
    ))
}

fn first_argument(process: &Process) -> &str {
    let argument = process.args().as_deref().unwrap_or_default().first();
    argument.map(String::as_str).unwrap_or_default()
}
