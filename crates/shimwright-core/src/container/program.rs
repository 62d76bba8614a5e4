//! What a process of a container executes: the engine with a module, or a program of the image.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use oci_spec::runtime::{Mount, Process, Spec};

use super::entrypoint::{self, Entrypoint, Program as Found};
use super::executor::{Exec, Target, c_strings};
use crate::cgroup::Cgroups;
use crate::code::cache::{self, Cache};
use crate::code::compiler::{self, Compilation, Turn};
use crate::code::content::{Fetching, Layer, Store};
use crate::config::node;
use crate::config::options::RuntimeOptions;
use crate::config::record::{ContainerKind, EngineMetrics};
use crate::engine::artifact::{Artifact, Kind, Precompiled, Wasm};
use crate::engine::limits::Limits;
use crate::engine::{Engine, Refusal};
use crate::error::{Context, Error};
use crate::policy;
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
        match entrypoint::find(root, mounts, process)? {
            Some((_, Found::Linux(path))) => self.linux(&path, process),
            Some((entrypoint, Found::Wasm(file))) => {
                self.wasm(entrypoint, Source::File(file, root), process, spec)
            }
            None if joins == Some(ContainerKind::Linux) => Err(Error::invalid(format!(
                "no such file or directory: {} is not in the root file system",
                first_argument(process)
            ))),
            None => {
                let (entrypoint, layer) = self.wasm_layer(process)?;
                self.wasm(entrypoint, Source::Layer(layer), process, spec)
            }
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

    /// The file is not in the root: an image may hold its module as a layer.
    fn wasm_layer(&self, process: &Process) -> Result<(Entrypoint, Layer), Error> {
        let argument = first_argument(process);
        let node = node::Config::read()?;
        let empty = Cache::open()?.empty_directory();
        let fetching = Fetching {
            config: node.compile(),
            cgroups: Cgroups::default(),
            empty: &empty,
            wanted: self.wanted.as_fd(),
        };
        let layer = self.store.layer(self.id, &fetching).with_context(|| {
            format!(
                "find the entrypoint {argument}: there is no such file in the root file system, \
                 and the image of container {} cannot be looked at",
                self.id
            )
        })?;
        match layer {
            Some(layer) => Ok((Entrypoint::parse(argument), layer)),
            None => Err(Error::invalid(format!(
                "no such file or directory: the entrypoint {argument} is not in the root file \
                 system, and the image has no WebAssembly layer"
            ))),
        }
    }

    fn wasm(
        &self,
        entrypoint: Entrypoint,
        source: Source<'_>,
        process: &Process,
        spec: &Spec,
    ) -> Result<Exec, Error> {
        let node = node::Config::read()?;
        let limits = node.limits(self.options)?.narrow_for(spec)?;
        let engine = self.host.engine(&self.options.engine())?;
        let code = self.code(&*engine, source, &limits, &node);
        let Code {
            artifact,
            precompiled,
            mut figures,
        } = code.map_err(|error| match error {
            Error::Invalid { what } => Error::invalid(format!("{}: {what}", entrypoint.path)),
            other => other,
        })?;
        figures.artifact_bytes = artifact.metadata().context("inspect the artifact")?.len();
        let artifact = OwnedFd::from(artifact);
        // A guest's strings are C strings too, although they do not pass through `execve`.
        c_strings(ENV, process.env().as_deref().unwrap_or_default())?;
        let mut args = process.args().clone().unwrap_or_default();
        c_strings(ARGS, &args)?;
        if let Some(first) = args.first_mut() {
            entrypoint.path.clone_into(first);
        }
        let config = RunnerConfig {
            function: entrypoint.function,
            args: args.clone(),
            env: policy::env(process, &limits),
            preopens: policy::preopens(),
            artifact: artifact.as_raw_fd(),
            precompiled: precompiled.map(Into::into),
            limits: limits.clone(),
            options: self.options.engine.clone(),
        };
        let config = config.write()?;
        Ok(Exec {
            env: c_strings(ENV, &[runner::environment(&config)])?,
            target: Target::Runner {
                program: Arc::new(Program::of(self.host)?),
                inherited: vec![Arc::new(config), Arc::new(artifact)],
            },
            args: c_strings(ARGS, &runner::shown(&args))?,
            limits,
            shim_alive: Arc::clone(&self.shim_alive),
            controls_terminal: false,
            failure: None,
            figures: Some(figures),
        })
    }

    /// What the runner is going to load: the native code of a module if the engine compiles ahead
    /// of time, or the module itself.
    fn code(
        &self,
        engine: &dyn Engine,
        source: Source<'_>,
        limits: &Limits,
        node: &node::Config,
    ) -> Result<Code, Error> {
        let config = node.compile();
        // Before anything of it is read.
        config.check_size(source.size()?)?;
        let Some(precompiler) = engine.precompiler() else {
            let file = match source {
                Source::File(file, _) => file,
                Source::Layer(layer) => {
                    let cache = Cache::open()?;
                    let turn = Turn::wait(&cache, config, self.wanted.as_fd())?;
                    self.fetch(&layer, &cache, config, &turn)?
                }
            };
            // A copy, as a descriptor of the file would be one of the node's mount of it: root in the
            // container could write through it to a volume that is read-only there.
            let artifact = cache::frozen(&file, config.module_size).context("read the module")?;
            let wasm = open(&artifact)?;
            engine
                .validate(wasm.bytes())
                .map_err(|error| Error::invalid(error.to_string()))?;
            self.accepted(engine, &Artifact::Wasm(wasm), limits)?;
            return Ok(Code {
                artifact,
                precompiled: None,
                figures: EngineMetrics::default(),
            });
        };
        let fingerprint = precompiler.fingerprint();
        let cache = Cache::open()?;
        let key = |digest: &str| cache::key(self.host.name, &fingerprint, digest);
        let (digest, kind) = match &source {
            Source::File(file, path) => {
                let kind = detect(file)?;
                let overlay = self.overlay;
                (cache.digest(file, cache::Root { path, overlay })?, kind)
            }
            Source::Layer(layer) => {
                let kind = Kind::detect(&layer.preamble);
                let kind = kind.map_err(|error| Error::invalid(error.to_string()))?;
                let digest = layer.digest().context("look at the layer")?;
                (digest.to_owned(), kind)
            }
        };
        let stored = |file: File| -> Result<Code, Error> {
            let artifact = file.try_clone().context("keep the artifact")?;
            let artifact = Artifact::Precompiled(Precompiled::trusted(artifact, kind));
            self.accepted(engine, &artifact, limits)?;
            Ok(Code {
                artifact: file,
                precompiled: Some(kind),
                figures: EngineMetrics {
                    cache_hit: Some(true),
                    ..EngineMetrics::default()
                },
            })
        };
        if let Some(found) = cache.find(&key(&digest))? {
            return stored(found);
        }
        let turn = Turn::wait(&cache, config, self.wanted.as_fd())?;
        // Another launcher may have compiled the same meanwhile.
        if let Some(found) = cache.find(&key(&digest))? {
            return stored(found);
        }
        let file = match source {
            Source::File(file, _) => file,
            Source::Layer(layer) => self.fetch(&layer, &cache, config, &turn)?,
        };
        // What is compiled must be what the key names, whatever happens to the file meanwhile.
        let frozen = cache::frozen(&file, config.module_size).context("read the module")?;
        let wasm = open(&frozen)?;
        let (key, kind) = (key(&cache::digest(wasm.bytes())), wasm.kind());
        self.accepted(engine, &Artifact::Wasm(wasm), limits)?;
        let (artifact, figures) = self.compile(&cache, &key, &frozen, config, &turn)?;
        if figures.cache_hit == Some(false)
            && let Err(error) = cache.sweep(node.cache_size(), &key)
        {
            tracing::warn!(%error, "cannot make room in the cache");
        }
        Ok(Code {
            artifact,
            precompiled: Some(kind),
            figures,
        })
    }

    fn compile(
        &self,
        cache: &Cache,
        key: &str,
        wasm: &File,
        config: &node::Compile,
        turn: &Turn<'_>,
    ) -> Result<(File, EngineMetrics), Error> {
        let mut figures = EngineMetrics {
            // It is found like any other if another launcher compiles the same at this moment.
            cache_hit: Some(true),
            ..EngineMetrics::default()
        };
        let empty = cache.empty_directory();
        let compilation = Compilation {
            host: self.host,
            options: &self.options.engine,
            config,
            turn,
            empty: &empty,
            wanted: self.wanted.as_fd(),
        };
        let compile = |output: &File| {
            let begin = Instant::now();
            compilation.run(wasm, output)?;
            figures.compile_seconds = Some(begin.elapsed().as_secs_f64());
            figures.cache_hit = Some(false);
            Ok(())
        };
        let pause = || compiler::pause(self.wanted.as_fd());
        let artifact = cache.find_or_compile(key, pause, compile)?;
        Ok((artifact, figures))
    }

    fn fetch(
        &self,
        layer: &Layer,
        cache: &Cache,
        config: &node::Compile,
        turn: &Turn<'_>,
    ) -> Result<File, Error> {
        let fetching = Fetching {
            config,
            cgroups: turn.cgroups(),
            empty: &cache.empty_directory(),
            wanted: self.wanted.as_fd(),
        };
        self.store
            .fetch(layer, &fetching)
            .context("fetch the layer")
    }

    fn accepted(
        &self,
        engine: &dyn Engine,
        artifact: &Artifact,
        limits: &Limits,
    ) -> Result<(), Error> {
        let accepted = engine.accepts(artifact);
        let accepted = accepted.and_then(|()| {
            let mut asked = limits.of_the_engine();
            match asked.find(|limit| !engine.enforced_limits().contains(limit)) {
                Some(limit) => Err(Refusal::new(format!("this engine cannot keep to {limit}"))),
                None => Ok(()),
            }
        });
        accepted.map_err(|source| Error::Refused {
            engine: self.host.name,
            source,
        })
    }
}

/// Where a guest comes from.
enum Source<'a> {
    /// A file in the root file system at this path.
    File(File, &'a Path),
    Layer(Layer),
}

impl Source<'_> {
    fn size(&self) -> Result<u64, Error> {
        match self {
            Self::File(file, _) => Ok(file.metadata().context("inspect the module")?.len()),
            Self::Layer(layer) => Ok(layer.size),
        }
    }
}

/// What a runner loads.
struct Code {
    artifact: File,
    /// Its kind if it is native code.
    precompiled: Option<Kind>,
    figures: EngineMetrics,
}

/// Reads the preamble of a file that others may write to.
fn detect(file: &File) -> Result<Kind, Error> {
    use std::os::unix::fs::FileExt;
    let mut preamble = [0; 8];
    let mut length = 0;
    while length < preamble.len() {
        let read = file.read_at(&mut preamble[length..], length as u64);
        match read.context("read the module")? {
            0 => break,
            read => length += read,
        }
    }
    Kind::detect(&preamble[..length]).map_err(|error| Error::invalid(error.to_string()))
}

/// Maps a copy that is sealed.
fn open(file: &File) -> Result<Wasm, Error> {
    Wasm::open(file).map_err(|error| Error::invalid(error.to_string()))
}

fn first_argument(process: &Process) -> &str {
    let argument = process.args().as_deref().unwrap_or_default().first();
    argument.map(String::as_str).unwrap_or_default()
}
