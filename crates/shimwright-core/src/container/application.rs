//! Gets at all parts of an application: its manifest, its components and its files.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::artifact::{Code, Loader, Source};
use super::entrypoint;
use crate::cgroup::Cgroups;
use crate::code::application::{MAX_MANIFEST, check_requirements, title};
use crate::code::cache::Cache;
use crate::code::content::{Fetching, ImageApplication, Layer};
use crate::config::record::EngineMetrics;
use crate::engine::Refusal;
use crate::engine::application::{ApplicationFormat, Manifest, PartRecord, SourceRecord};
use crate::error::{Context, Error};
use crate::runner::config::{ApplicationFiles, ArtifactFile, Load};
use crate::sys;

/// The root file system of a container that is not built yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root<'a> {
    pub(super) path: &'a Path,
    /// What the spec mounts in it.
    pub(super) mounts: &'a [Mount],
}

/// An application that has been found, but for its parts.
pub(super) struct Found<'a> {
    root: Root<'a>,
    manifest: Manifest,
    /// Those that the parts may be.
    layers: Vec<Layer>,
}

/// What a runner loads, and the descriptors that it inherits for it.
pub(super) struct Loaded {
    pub(super) load: Load,
    pub(super) inherited: Vec<OwnedFd>,
    pub(super) figures: EngineMetrics,
}

impl<'a> Found<'a> {
    /// Finds a manifest in the root file system; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It is there, but cannot be read or is too large.
    pub(super) fn in_root(
        root: Root<'a>,
        format: ApplicationFormat,
    ) -> Result<Option<Self>, Error> {
        for &path in format.manifest_paths {
            let Some(file) = entrypoint::open(root.path, root.mounts, Path::new(path))? else {
                continue;
            };
            let size = file.metadata().context("inspect the manifest")?.len();
            let mut bytes = Vec::new();
            // It may grow meanwhile.
            let mut file = file.take(MAX_MANIFEST + 1);
            if size <= MAX_MANIFEST {
                let read = file.read_to_end(&mut bytes);
                read.with_context(|| format!("read the manifest {path}"))?;
            }
            let size = size.max(bytes.len() as u64);
            if size > MAX_MANIFEST {
                return Err(Error::invalid(format!(
                    "the manifest {path} has {size} bytes, more than {MAX_MANIFEST}"
                )));
            }
            return Ok(Some(Self {
                root,
                manifest: Manifest::new(path, bytes),
                layers: Vec::new(),
            }));
        }
        Ok(None)
    }

    /// The layers of an image.
    pub(super) fn in_image(root: Root<'a>, image: ImageApplication) -> Self {
        let records = image.layers.iter().map(Layer::record).collect();
        Self {
            root,
            manifest: Manifest::of_image(image.media_type, records, image.manifest),
            layers: image.layers,
        }
    }

    /// Has the manifest read, with the guest's environment, and gets all parts, each component as if
    /// it were the only program.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Refused` with the part and the reason why the application cannot run.
    pub(super) fn load(
        &mut self,
        loader: &Loader<'_>,
        env: Vec<(String, String)>,
    ) -> Result<Loaded, Error> {
        self.manifest.set_env(env);
        let cache = Cache::open()?;
        let mut encoded = memory(c"manifest")?;
        let bytes = self.manifest.encode().context("encode the manifest")?;
        encoded.write_all(&bytes).context("keep the manifest")?;
        let encoded = sealed(encoded)?;
        let empty = cache.empty_directory();
        let origin = self.manifest.origin();
        let planned = loader
            .planning(&empty)
            .run(&encoded, self.manifest.records());
        let plan = planned.map_err(|error| about(error, origin))?;
        check_requirements(&plan, loader.limits)?;

        // What all parts together may have.
        let mut left = loader.node.compile().module_size;
        let mut figures = EngineMetrics::default();
        let mut components = Vec::new();
        let mut inherited: Vec<OwnedFd> = vec![encoded.into()];
        for part in &plan.components {
            let loaded = self.component(part, loader, &mut left);
            let code = loaded.map_err(|error| about(error, &title("component", part)))?;
            add(&mut figures, &code.figures);
            let file = ArtifactFile::new(&code.artifact, code.precompiled);
            components.push((part.name.clone(), file));
            inherited.push(code.artifact.into());
        }
        let (content, files) = self.files(&plan.files, loader, &cache, left)?;
        let load = Load::Application(ApplicationFiles {
            manifest: inherited[0].as_raw_fd(),
            components,
            content: content.as_raw_fd(),
            files,
        });
        inherited.push(content.into());
        Ok(Loaded {
            load,
            inherited,
            figures,
        })
    }

    fn component(
        &self,
        part: &PartRecord,
        loader: &Loader<'_>,
        left: &mut u64,
    ) -> Result<Code, Error> {
        let source = match &part.source {
            SourceRecord::Path(path) => Source::File(self.open(path)?, self.root.path),
            SourceRecord::Layer(digest) => Source::Layer(self.layer(digest)?.clone()),
        };
        let size = source.size()?;
        loader.node.compile().check_size(size)?;
        take(left, size)?;
        loader.load(source)
    }

    /// All files one after the other, and how they are told apart.
    fn files(
        &self,
        parts: &[PartRecord],
        loader: &Loader<'_>,
        cache: &Cache,
        mut left: u64,
    ) -> Result<(File, Vec<(String, usize)>), Error> {
        let of_part = |part| move |error| about(error, &title("file", part));
        let mut layers = Vec::new();
        for part in parts {
            if let SourceRecord::Layer(digest) = &part.source {
                let layer = self.layer(digest).map_err(of_part(part))?;
                take(&mut left, layer.size).map_err(of_part(part))?;
                layers.push(layer);
            }
        }
        let mut fetched = self.fetch(&layers, loader, cache)?;
        let mut content = memory(c"files")?;
        let mut lengths = Vec::new();
        for part in parts {
            let copied = match &part.source {
                SourceRecord::Layer(digest) => {
                    let size = self.layer(digest)?.size;
                    let copied = io::copy(&mut fetched.by_ref().take(size), &mut content);
                    copied.context("copy the layer")
                }
                SourceRecord::Path(path) => self.open(path).and_then(|file| {
                    // It may grow, and more than the rest is not copied.
                    let size = file.metadata().context("inspect the file")?.len();
                    let copied = take(&mut left, size)
                        .map(|()| io::copy(&mut file.take(size), &mut content))?;
                    copied.context("copy the file")
                }),
            };
            let copied = copied.map_err(of_part(part))?;
            let length = usize::try_from(copied).context("count the bytes of the files")?;
            lengths.push((part.name.clone(), length));
        }
        Ok((sealed(content)?, lengths))
    }

    /// Layers, one after the other.
    fn fetch(
        &self,
        layers: &[&Layer],
        loader: &Loader<'_>,
        cache: &Cache,
    ) -> Result<Box<dyn Read>, Error> {
        if layers.is_empty() {
            return Ok(Box::new(io::empty()));
        }
        let programs = loader.programs;
        let fetching = Fetching {
            config: loader.node.compile(),
            cgroups: Cgroups::default(),
            empty: &cache.empty_directory(),
            wanted: programs.wanted.as_fd(),
        };
        let fetched = programs.store.fetch(layers, &fetching);
        let fetched = fetched.context("fetch the application's files")?;
        Ok(Box::new(fetched))
    }

    fn open(&self, path: &str) -> Result<File, Error> {
        let inside = PathBuf::from("/").join(path);
        let file = entrypoint::open(self.root.path, self.root.mounts, &inside)?;
        file.ok_or_else(|| {
            Error::invalid(format!(
                "the path {path:?} is no regular file in the root file system"
            ))
        })
    }

    fn layer(&self, digest: &str) -> Result<&Layer, Error> {
        let mut layers = self.layers.iter();
        let layer = layers.find(|layer| layer.is(digest));
        layer.ok_or_else(|| Error::invalid(format!("the digest {digest:?} is of no layer")))
    }
}

/// Takes the size of one part from what is left for all.
fn take(left: &mut u64, size: u64) -> Result<(), Error> {
    *left = left.checked_sub(size).ok_or_else(|| {
        Error::invalid(
            "with this part, those of the application have more bytes than compile.module_size",
        )
    })?;
    Ok(())
}

/// What getting at all components has cost: a hit only if each was one.
fn add(sum: &mut EngineMetrics, one: &EngineMetrics) {
    sum.artifact_bytes += one.artifact_bytes;
    sum.cache_hit = match (sum.cache_hit, one.cache_hit) {
        (Some(all), Some(this)) => Some(all && this),
        (known, None) | (None, known) => known,
    };
    if let Some(seconds) = one.compile_seconds {
        *sum.compile_seconds.get_or_insert_default() += seconds;
    }
}

/// Says what an error is about.
fn about(error: Error, what: &str) -> Error {
    match error {
        Error::Invalid { what: reason } => Error::invalid(format!("{what}: {reason}")),
        Error::Refused { engine, source } => Error::Refused {
            engine,
            source: Refusal::new(format!("{what}: {source}")),
        },
        other => Error::Failed {
            action: format!("load {what}"),
            source: other.into(),
        },
    }
}

fn memory(name: &CStr) -> Result<File, Error> {
    sys::memory::sealable_memfd(name).context("make memory for an application")
}

fn sealed(file: File) -> Result<File, Error> {
    let done = (&file).rewind().and_then(|()| sys::memory::seal(&file));
    done.context("seal the memory of an application")?;
    Ok(file)
}
