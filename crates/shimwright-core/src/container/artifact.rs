//! Gets at what a runner loads for one WebAssembly binary: the binary itself, or native code of the
//! cache, which is compiled if it is not there.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use super::program::Programs;
use crate::code::cache::{self, Cache};
use crate::code::compiler::{self, Compilation, Turn};
use crate::code::content::{Fetching, Layer};
use crate::code::planner::Planning;
use crate::config::node;
use crate::config::record::EngineMetrics;
use crate::engine::artifact::{Artifact, Kind, Precompiled, Wasm};
use crate::engine::limits::Limits;
use crate::engine::{Engine, Refusal};
use crate::error::{Context, Error};

/// Where a WebAssembly binary comes from.
pub(super) enum Source<'a> {
    /// A file in the root file system at this path.
    File(File, &'a Path),
    Layer(Layer),
}

impl Source<'_> {
    pub(super) fn size(&self) -> Result<u64, Error> {
        match self {
            Self::File(file, _) => Ok(file.metadata().context("inspect the module")?.len()),
            Self::Layer(layer) => Ok(layer.size),
        }
    }
}

/// What a runner loads.
pub(super) struct Code {
    pub(super) artifact: File,
    /// Its kind if it is native code.
    pub(super) precompiled: Option<Kind>,
    pub(super) figures: EngineMetrics,
}

/// Loads binaries for one process. Launcher process.
pub(super) struct Loader<'a> {
    pub(super) programs: &'a Programs<'a>,
    pub(super) engine: &'a dyn Engine,
    pub(super) limits: &'a Limits,
    pub(super) node: &'a node::Config,
}

impl Loader<'_> {
    /// What the runner is going to load: native code if the engine compiles ahead of time, or the
    /// binary itself.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Refused` with the reason why the binary cannot run.
    pub(super) fn load(&self, source: Source<'_>) -> Result<Code, Error> {
        // Before anything of it is read.
        self.config().check_size(source.size()?)?;
        let mut code = match self.engine.precompiler() {
            Some(precompiler) => self.precompiled(&precompiler.fingerprint(), source)?,
            None => self.interpreted(source)?,
        };
        let metadata = code.artifact.metadata().context("inspect the artifact")?;
        code.figures.artifact_bytes = metadata.len();
        Ok(code)
    }

    /// How planners are executed, in this empty directory.
    pub(super) fn planning<'a>(&'a self, empty: &'a Path) -> Planning<'a> {
        let programs = self.programs;
        Planning {
            host: programs.host,
            options: &programs.options.engine,
            config: self.config(),
            empty,
            wanted: programs.wanted.as_fd(),
        }
    }

    fn config(&self) -> &node::Compile {
        self.node.compile()
    }

    fn interpreted(&self, source: Source<'_>) -> Result<Code, Error> {
        let config = self.config();
        let file = match source {
            Source::File(file, _) => file,
            Source::Layer(layer) => {
                let cache = Cache::open()?;
                let turn = Turn::wait(&cache, config, self.programs.wanted.as_fd())?;
                self.fetch(&layer, &cache, &turn)?
            }
        };
        // A copy, as a descriptor of the file would be one of the node's mount of it: root in the
        // container could write through it to a volume that is read-only there.
        let artifact = cache::frozen(&file, config.module_size).context("read the module")?;
        let wasm = Artifact::Wasm(open(&artifact)?);
        self.accepted(&wasm)?;
        if self.engine.validator().is_some() {
            let empty = Cache::open()?.empty_directory();
            self.planning(&empty).validate(&artifact)?;
        }
        Ok(Code {
            artifact,
            precompiled: None,
            figures: EngineMetrics::default(),
        })
    }

    fn precompiled(&self, fingerprint: &str, source: Source<'_>) -> Result<Code, Error> {
        let cache = Cache::open()?;
        let (digest, kind) = self.identify(&cache, &source)?;
        let key = self.key(fingerprint, &digest);
        if let Some(found) = cache.find(&key)? {
            return self.stored(found, kind);
        }
        let turn = Turn::wait(&cache, self.config(), self.programs.wanted.as_fd())?;
        // Another launcher may have compiled the same meanwhile.
        if let Some(found) = cache.find(&key)? {
            return self.stored(found, kind);
        }
        self.compiled(&cache, fingerprint, source, &turn)
    }

    /// The digest and the kind of a binary, of which no more than necessary is read.
    fn identify(&self, cache: &Cache, source: &Source<'_>) -> Result<(cache::Hex, Kind), Error> {
        match source {
            Source::File(file, path) => {
                let kind = detect(file)?;
                let overlay = self.programs.overlay;
                Ok((cache.digest(file, cache::Root { path, overlay })?, kind))
            }
            Source::Layer(layer) => {
                let kind = Kind::detect(&layer.preamble);
                let kind = kind.map_err(|error| Error::invalid(error.to_string()))?;
                let digest = layer.digest().context("look at the layer")?;
                Ok((digest.to_owned(), kind))
            }
        }
    }

    fn key(&self, fingerprint: &str, digest: &str) -> cache::Hex {
        cache::key(self.programs.host.name, fingerprint, digest)
    }

    fn stored(&self, file: File, kind: Kind) -> Result<Code, Error> {
        let artifact = file.try_clone().context("keep the artifact")?;
        let artifact = Artifact::Precompiled(Precompiled::trusted(artifact, kind));
        self.accepted(&artifact)?;
        Ok(Code {
            artifact: file,
            precompiled: Some(kind),
            figures: EngineMetrics {
                cache_hit: Some(true),
                ..EngineMetrics::default()
            },
        })
    }

    fn compiled(
        &self,
        cache: &Cache,
        fingerprint: &str,
        source: Source<'_>,
        turn: &Turn<'_>,
    ) -> Result<Code, Error> {
        let file = match source {
            Source::File(file, _) => file,
            Source::Layer(layer) => self.fetch(&layer, cache, turn)?,
        };
        // What is compiled must be what the key names, whatever happens to the file meanwhile.
        let most = self.config().module_size;
        let frozen = cache::frozen(&file, most).context("read the module")?;
        let wasm = open(&frozen)?;
        let key = self.key(fingerprint, &cache::digest(wasm.bytes()));
        let kind = wasm.kind();
        self.accepted(&Artifact::Wasm(wasm))?;
        let (artifact, figures) = self.compile(cache, &key, &frozen, turn)?;
        if figures.cache_hit == Some(false)
            && let Err(error) = cache.sweep(self.node.cache_size(), &key)
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
        turn: &Turn<'_>,
    ) -> Result<(File, EngineMetrics), Error> {
        let mut figures = EngineMetrics {
            // It is found like any other if another launcher compiles the same at this moment.
            cache_hit: Some(true),
            ..EngineMetrics::default()
        };
        let empty = cache.empty_directory();
        let wanted = self.programs.wanted.as_fd();
        let compilation = Compilation {
            host: self.programs.host,
            options: &self.programs.options.engine,
            config: self.config(),
            turn,
            empty: &empty,
            wanted,
        };
        let compile = |output: &File| {
            let begin = Instant::now();
            compilation.run(wasm, output)?;
            figures.compile_seconds = Some(begin.elapsed().as_secs_f64());
            figures.cache_hit = Some(false);
            Ok(())
        };
        let artifact = cache.find_or_compile(key, || compiler::pause(wanted), compile)?;
        Ok((artifact, figures))
    }

    fn fetch(&self, layer: &Layer, cache: &Cache, turn: &Turn<'_>) -> Result<File, Error> {
        let fetching = Fetching {
            config: self.config(),
            cgroups: turn.cgroups(),
            empty: &cache.empty_directory(),
            wanted: self.programs.wanted.as_fd(),
        };
        let fetched = self.programs.store.fetch(&[layer], &fetching);
        fetched.context("fetch the layer")
    }

    /// Asks the engine whether it can run the artifact and keep the limits.
    fn accepted(&self, artifact: &Artifact) -> Result<(), Error> {
        let accepted = self.engine.accepts(artifact).and_then(|()| {
            let mut asked = self.limits.of_the_engine();
            match asked.find(|limit| !self.engine.enforced_limits().contains(limit)) {
                Some(limit) => Err(Refusal::new(format!("this engine cannot keep to {limit}"))),
                None => Ok(()),
            }
        });
        accepted.map_err(|source| Error::Refused {
            engine: self.programs.host.name,
            source,
        })
    }
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
