//! Creating a container: from a bundle to a first process that waits for `start`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::api::Mount;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Process, Spec};
use rustix::process::{Pid, PidfdFlags};

use super::entrypoint::{self, Entrypoint, Program};
use super::executor::{Exec, Target, c_strings};
use super::launcher::Reply;
use super::spawn::{self, Spawn};
use super::{cleanup, rootfs};
use crate::artifact::{Artifact, Wasm};
use crate::bundle::{Bundle, Init, Record};
use crate::cache::{self, Cache};
use crate::cgroup::Hierarchies;
use crate::content::Store;
use crate::engine::Engine;
use crate::error::{Context, Error};
use crate::host::Host;
use crate::options::RuntimeOptions;
use crate::runner::{self, Orders};
use crate::stdio::Streams;
use crate::workload::{DEFAULT_FUNCTION, Workload};
use crate::{compiler, policy, sys};

/// One container to create.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) host: &'a Host,
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    /// What to mount as the root file system; nothing if it is there already.
    pub(crate) mounts: &'a [Mount],
    pub(crate) options: &'a RuntimeOptions,
    pub(crate) hierarchies: &'a Hierarchies,
    pub(crate) store: &'a Store,
    pub(crate) shim_alive: OwnedFd,
}

/// What the container's first process will be.
struct Plan {
    exec: Exec,
    /// The spec to build the sandbox from.
    spec: Spec,
    /// The spec has hooks to run after `start`.
    poststart: bool,
}

impl Job<'_> {
    /// Creates the container. Launcher process.
    ///
    /// # Errors
    ///
    /// Why there is no container; everything done for it has been undone.
    pub(crate) fn run(self, streams: Streams) -> Result<(Reply, Option<OwnedFd>), Error> {
        let bundle = self.bundle;
        // libcontainer needs a working directory, and the shim's own may have been removed: it is
        // the bundle of the first container of the group.
        rustix::process::chdir(bundle.directory())
            .with_context(|| format!("enter the bundle {}", bundle.directory().display()))?;
        bundle.make_private()?;
        let mut record = Record::new(self.id);
        // Written before there is anything to clean up.
        record.mounted = !self.mounts.is_empty();
        bundle.write_record(&record)?;
        let created = self.create(streams, &mut record);
        if created.is_err()
            && let Err(error) = cleanup::undo(bundle, &record)
        {
            tracing::error!(%error, id = record.id, "cannot undo a failed create");
        }
        created
    }

    fn create(
        self,
        streams: Streams,
        record: &mut Record,
    ) -> Result<(Reply, Option<OwnedFd>), Error> {
        let (id, bundle, hierarchies) = (self.id, self.bundle, self.hierarchies);
        let (systemd, no_pivot) = (self.options.systemd_cgroup, self.options.no_pivot_root);
        rootfs::mount(self.mounts, &bundle.rootfs())?;
        let plan = self.plan()?;
        let Plan {
            exec,
            spec,
            poststart,
        } = plan;
        refuse_used_cgroup(&spec, hierarchies)?;
        let pid = if !systemd && spawn::can(&spec, hierarchies) {
            Spawn {
                id,
                bundle,
                hierarchies,
                spec,
                exec,
                no_pivot,
            }
            .run(&streams, record)?
        } else {
            let pid = build(id, bundle, &spec, exec, streams, systemd, no_pivot)?;
            // It is our child, so the pid cannot have been given to another process yet.
            record.cgroups = hierarchies
                .of_container(pid)
                .context("find the control groups")?;
            pid
        };
        let init = Init::of(pid).context("inspect the first process")?;
        record.init = Some(init);
        bundle.write_record(record)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .context("open the first process")?;
        let cgroups = record.cgroups.clone();
        Ok((
            Reply::Created {
                init,
                cgroups,
                poststart,
            },
            Some(handle),
        ))
    }

    fn plan(self) -> Result<Plan, Error> {
        let mut spec = self.bundle.spec()?;
        let root = absolute_root(&mut spec, self.bundle)?;
        let process = spec
            .process()
            .clone()
            .ok_or_else(|| Error::invalid("config.json has no process"))?;
        if process.terminal().unwrap_or_default() {
            return Err(Error::NotSupported {
                operation: "a terminal".to_owned(),
            });
        }
        let poststart = spec
            .hooks()
            .as_ref()
            .is_some_and(|hooks| hooks.poststart().is_some());
        let mounts = spec.mounts().clone().unwrap_or_default();
        let found = entrypoint::find(&root, &mounts, &process)?;
        let (entrypoint, wasm) = match found {
            Some((_, Program::Linux(path))) => {
                // libcontainer sets those of the spec, if it has any, and leaves ours otherwise.
                sys::set_groups(&[]).context("leave the shim's groups")?;
                return Ok(Plan {
                    exec: self.linux(&path, &process)?,
                    spec,
                    poststart,
                });
            }
            Some((entrypoint, Program::Wasm(file))) => {
                let digest = cache::digest(
                    sys::Mapping::of_file(file.as_fd())
                        .context("read the module")?
                        .as_ref(),
                );
                (entrypoint, (file, digest))
            }
            None => self.wasm_layer(&process)?,
        };
        policy::restrict(&mut spec);
        sys::set_groups(&policy::take_groups(&mut spec)?).context("set the groups")?;
        Ok(Plan {
            exec: self.wasm(entrypoint, wasm, &process)?,
            spec,
            poststart,
        })
    }

    /// A program of the image runs as in any container.
    fn linux(self, path: &Path, process: &Process) -> Result<Exec, Error> {
        let args = process.args().as_deref().unwrap_or_default();
        let path = path.to_string_lossy().into_owned();
        let path = c_strings(&[path])?.remove(0);
        Ok(Exec {
            target: Target::Linux { path },
            args: c_strings(args)?,
            env: c_strings(process.env().as_deref().unwrap_or_default())?,
            shim_alive: Arc::new(self.shim_alive),
        })
    }

    /// The file is not in the root: an image may hold its module as a layer.
    fn wasm_layer(&self, process: &Process) -> Result<(Entrypoint, (File, cache::Hex)), Error> {
        let argument = process.args().as_deref().unwrap_or_default().first();
        let argument = argument.map(String::as_str).unwrap_or_default();
        let layer = self.store.layer(self.id).with_context(|| {
            format!(
                "find the entrypoint {argument}: there is no such file in the root file system, \
                 and the image of container {} cannot be looked at",
                self.id
            )
        })?;
        match layer {
            Some(layer) => Ok((Entrypoint::parse(argument), (layer.wasm, layer.digest))),
            None => Err(Error::invalid(format!(
                "no such file or directory: the entrypoint {argument} is not in the root file \
                 system, and the image has no WebAssembly layer"
            ))),
        }
    }

    fn wasm(
        self,
        entrypoint: Entrypoint,
        (file, digest): (File, cache::Hex),
        process: &Process,
    ) -> Result<Exec, Error> {
        let engine = self.host.engine(&self.options.engine())?;
        let wasm = Wasm::open(&file)
            .map_err(|error| Error::invalid(format!("{}: {error}", entrypoint.path)))?;
        let kind = wasm.kind();
        self.accepted(&*engine, wasm)?;

        let precompiled = self.precompiled(&*engine, &file, &digest);
        let precompiled = precompiled.map_err(|error| match error {
            Error::Invalid { what } => Error::invalid(format!("{}: {what}", entrypoint.path)),
            other => other,
        })?;
        let is_precompiled = precompiled.is_some();
        let artifact = OwnedFd::from(precompiled.unwrap_or(file));
        let mut args = process.args().clone().unwrap_or_default();
        if let Some(first) = args.first_mut() {
            entrypoint.path.clone_into(first);
        }
        let orders = Orders {
            function: entrypoint.function,
            args: args.clone(),
            env: policy::env(process),
            preopens: policy::preopens(),
            artifact: artifact.as_raw_fd(),
            precompiled: is_precompiled.then(|| kind.into()),
            options: self.options.engine.clone(),
        };
        let orders = orders.write()?;
        Ok(Exec {
            env: c_strings(&[runner::environment(&orders)])?,
            target: Target::Runner {
                program: Arc::new(own_program()?),
                inherited: vec![Arc::new(orders), Arc::new(artifact)],
            },
            args: c_strings(&args)?,
            shim_alive: Arc::new(self.shim_alive),
        })
    }

    fn accepted(&self, engine: &dyn Engine, wasm: Wasm) -> Result<(), Error> {
        let workload = Workload::new(Artifact::Wasm(wasm)).with_function(DEFAULT_FUNCTION);
        engine.accepts(&workload).map_err(|source| Error::Refused {
            engine: self.host.name,
            source,
        })
    }

    /// The native code of a module, if the engine compiles ahead of time.
    fn precompiled(
        &self,
        engine: &dyn Engine,
        file: &File,
        digest: &str,
    ) -> Result<Option<File>, Error> {
        let Some(precompiler) = engine.precompiler() else {
            return Ok(None);
        };
        let fingerprint = precompiler.fingerprint();
        let cache = Cache::open()?;
        let key = |digest: &str| cache::key(self.host.name, &fingerprint, digest);
        if let Some(found) = cache.find(&key(digest))? {
            return Ok(Some(found));
        }
        // What is compiled must be what the key names, whatever happens to the file meanwhile.
        let frozen = cache::frozen(file).context("read the module")?;
        let mapping = sys::Mapping::of_file(frozen.as_fd()).context("read the module")?;
        let key = key(&cache::digest(mapping.as_ref()));
        let empty = cache.empty_directory();
        let compile = |output: &File| {
            compiler::compile(self.host, &self.options.engine, &frozen, output, &empty)
        };
        cache.find_or_compile(&key, compile).map(Some)
    }
}

/// Whatever is in a container's control groups is ended with it, so nothing else may be in there.
fn refuse_used_cgroup(spec: &Spec, hierarchies: &Hierarchies) -> Result<(), Error> {
    let path = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_deref());
    let Some(path) = path else {
        return Ok(());
    };
    let processes = hierarchies.at(path).and_then(|cgroups| cgroups.processes());
    if processes
        .context("look into the control groups")?
        .is_empty()
    {
        return Ok(());
    }
    let path = path.display();
    Err(Error::invalid(format!(
        "the control group {path} is in use"
    )))
}

/// Has libcontainer's builder do all of it.
fn build(
    id: &str,
    bundle: &Bundle,
    spec: &Spec,
    exec: Exec,
    streams: Streams,
    systemd: bool,
    no_pivot: bool,
) -> Result<Pid, Error> {
    // The builder reads the spec from a bundle, and this one may have been restricted.
    let shown = bundle.private();
    spec.save(shown.join("config.json"))
        .context("write the restricted config.json")?;
    let container = ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
        .with_executor(exec)
        .with_root_path(bundle.libcontainer())
        .context("use the bundle")?
        .with_stdin(streams.stdin)
        .with_stdout(streams.stdout)
        .with_stderr(streams.stderr)
        .as_init(&shown)
        .with_systemd(systemd)
        .with_no_pivot(no_pivot)
        .with_detach(true)
        .build()
        .context("build the sandbox")?;
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw()));
    pid.ok_or_else(|| Error::invalid("the sandbox has no process"))
}

/// Makes the root of a spec an absolute path, and returns it.
fn absolute_root(spec: &mut Spec, bundle: &Bundle) -> Result<PathBuf, Error> {
    let mut root = spec
        .root()
        .clone()
        .ok_or_else(|| Error::invalid("config.json has no root"))?;
    let path = bundle.directory().join(root.path());
    root.set_path(path.clone());
    spec.set_root(Some(root));
    Ok(path)
}

/// The file of the running program, wherever that is now: an upgrade may have replaced its path.
fn own_program() -> Result<OwnedFd, Error> {
    let file = File::open("/proc/self/exe").context("open our own program")?;
    Ok(file.into())
}
