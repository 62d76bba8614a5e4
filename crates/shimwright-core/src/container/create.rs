//! Creates a container: from a bundle to a first process that waits for `start`.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::api::Mount;
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde::{Deserialize, Serialize};

use super::entrypoint;
use super::executor::Exec;
use super::home;
use super::program::Programs;
use super::spawn::{Spawn, Spawned};
use super::supported::{self, Node};
use super::terminal::Wiring;
use super::{cleanup, rootfs};
use crate::cgroup::{Cgroups, GroupPath, Hierarchies};
use crate::code::content::Store;
use crate::config::bundle::Bundle;
use crate::config::identity::ProcessId;
use crate::config::options::RuntimeOptions;
use crate::config::record::ContainerKind;
use crate::config::record::Record;
use crate::error::{Context, Error};
use crate::policy;
use crate::process::handle::Handle;
use crate::runner::host::Host;
use crate::stdio::Stdio;

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
    /// See [`Programs::wanted`].
    pub(crate) wanted: OwnedFd,
}

/// A container whose first process waits for `start`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Created {
    pub(crate) init: ProcessId,
    /// The first process.
    pub(crate) handle: Handle,
    /// A byte here is `start`; the process ends if it is closed before.
    pub(crate) start: Handle,
    pub(crate) cgroups: Cgroups,
    /// The shim's end of the terminal, if there is one.
    pub(crate) master: Option<Handle>,
    /// The spec has hooks to run after `start`.
    pub(crate) poststart: bool,
    pub(crate) kind: ContainerKind,
}

/// What the container's first process will be.
struct Plan {
    exec: Exec,
    /// The spec to build the sandbox from.
    spec: Spec,
    /// The process as the client wants it.
    process: Process,
    /// The spec has hooks to run after `start`.
    poststart: bool,
}

impl Job<'_> {
    /// Creates the container. Launcher process.
    ///
    /// # Errors
    ///
    /// Why there is no container; everything done for it has been undone.
    pub(crate) fn run(self, stdio: Stdio) -> Result<Created, Error> {
        let bundle = self.bundle;
        // Hooks are told to find their files here, and the shim's own working directory may have been
        // removed: it is the bundle of the first container of the group.
        rustix::process::chdir(bundle.directory())
            .with_context(|| format!("enter the bundle {}", bundle.directory().display()))?;
        bundle.make_private()?;
        let mut record = Record::new(self.id);
        // Written before there is anything to clean up.
        record.mounted = !self.mounts.is_empty();
        record.mounted_below = rootfs::any_below(self.mounts);
        bundle.write_record(&record)?;
        let created = self.create(stdio, &mut record);
        if created.is_err()
            && let Err(error) = cleanup::undo(bundle, &record, cleanup::BOUND)
        {
            tracing::error!(%error, id = record.id, "cannot undo a failed create");
        }
        created
    }

    fn create(self, stdio: Stdio, record: &mut Record) -> Result<Created, Error> {
        let (id, bundle, hierarchies) = (self.id, self.bundle, self.hierarchies);
        let engine = self.host.name;
        let options = self.options;
        rootfs::mount(self.mounts, &bundle.rootfs())?;
        let Plan {
            mut exec,
            spec,
            process,
            poststart,
        } = self.plan(matches!(stdio, Stdio::Terminal))?;
        let kind = exec.kind();
        let wiring = Wiring::new(stdio, &mut exec, kind, &process)
            .context("make the streams of the first process")?;
        refuse_used_cgroup(&spec, hierarchies)?;
        record.engine = exec
            .figures
            .clone()
            .map(|figures| (engine.to_owned(), figures));
        let spawn = Spawn {
            id,
            bundle,
            hierarchies,
            spec,
            exec,
            options,
        };
        let hooks = spawn.spec.hooks().as_ref();
        record.poststop = hooks.is_some_and(|hooks| hooks.poststop().is_some());
        let Spawned { process, start } = spawn.run(&wiring, record)?;
        let init = process.identity()?;
        record.init = Some(init);
        bundle.write_record(record)?;
        let master = wiring.master(process.terminal);
        let master = master.context("set up the container's terminal")?;
        Ok(Created {
            init,
            handle: process.handle.into(),
            start: start.into(),
            cgroups: record.cgroups.clone(),
            master: master.map(Into::into),
            poststart,
            kind,
        })
    }

    fn plan(self, is_terminal: bool) -> Result<Plan, Error> {
        let mut spec = self.bundle.spec()?;
        require_mount_namespace(&spec)?;
        supported::check(&spec, Node::discover(self.hierarchies.is_legacy()))?;
        supported::complete(&mut spec);
        let root = absolute_root(&mut spec, self.bundle)?;
        let mut process = spec
            .process()
            .clone()
            .ok_or_else(|| Error::invalid("config.json has no process"))?;
        check_terminal(&process, is_terminal)?;
        let mounts = spec.mounts().clone().unwrap_or_default();
        home::set(&mut process, &root, &mounts)?;
        let poststart = spec
            .hooks()
            .as_ref()
            .is_some_and(|hooks| hooks.poststart().is_some());
        let overlay = self.mounts.iter().find(|mount| mount.type_ == "overlay");
        let programs = Programs {
            host: self.host,
            id: self.id,
            options: self.options,
            store: self.store,
            overlay: overlay.map_or(&[], |mount| &mount.options),
            shim_alive: Arc::new(self.shim_alive),
            wanted: &self.wanted,
        };
        let exec = programs.find(&root, &mounts, &process, None, &spec)?;
        let is_guest = exec.kind() == ContainerKind::Wasm;
        policy::capabilities::complete(&mut process, is_guest);
        spec.set_process(Some(process.clone()));
        if is_guest {
            rootfs::refuse_kernels_volumes(&mounts)?;
            policy::restrict(&mut spec);
            let empty = self.bundle.private().join("root");
            if exec.limits.hides_image() {
                make_root(&empty, process.cwd())?;
            }
            exec.limits.apply(&mut spec, &empty);
            process = spec.process().clone().unwrap_or(process);
        }
        Ok(Plan {
            exec,
            spec,
            process,
            poststart,
        })
    }
}

/// What is mounted for a container must not be mounted for the whole node.
///
/// # Errors
///
/// `Invalid`, as the OCI runtime spec lets a container do without.
fn require_mount_namespace(spec: &Spec) -> Result<(), Error> {
    let linux = spec.linux().as_ref();
    let mut namespaces = linux
        .into_iter()
        .flat_map(|linux| linux.namespaces().iter().flatten());
    if namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::Mount) {
        return Ok(());
    }
    Err(Error::invalid(
        "config.json: linux.namespaces has no mount namespace, so mounts would be the node's",
    ))
}

/// The client and the spec of a container must agree about the terminal, or one of them waits for
/// the other. runc refuses the same (`checkTerminal` in its `utils_linux.go`). The terminal of an
/// exec is the request's alone.
///
/// # Errors
///
/// `Invalid`, saying what each of them wants.
fn check_terminal(process: &Process, is_terminal: bool) -> Result<(), Error> {
    if process.terminal().unwrap_or_default() == is_terminal {
        return Ok(());
    }
    let (spec, request) = if is_terminal {
        ("no terminal", "one")
    } else {
        ("a terminal", "none")
    };
    Err(Error::invalid(format!(
        "the process of the spec has {spec}, but the request asks for {request}"
    )))
}

fn cgroups_path(spec: &Spec) -> Option<GroupPath> {
    let linux = spec.linux().as_ref()?;
    GroupPath::parse(linux.cgroups_path().as_deref()?)
}

/// Whatever is in a container's cgroups is ended with it, so nothing else may be in there.
fn refuse_used_cgroup(spec: &Spec, hierarchies: &Hierarchies) -> Result<(), Error> {
    let Some(path) = cgroups_path(spec) else {
        return Ok(());
    };
    let processes = hierarchies
        .at(&path)
        .and_then(|cgroups| cgroups.that_exist().processes());
    if processes.context("look into the cgroups")?.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("the cgroup {path} is in use")))
}

/// Makes a root with nothing in it but the working directory; mounts get their places when they
/// are made.
fn make_root(root: &Path, cwd: &Path) -> Result<(), Error> {
    let cwd = root.join(entrypoint::normal(cwd).strip_prefix("/").unwrap_or(cwd));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&cwd)
        .with_context(|| format!("make {}", cwd.display()))
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
