//! An additional process in a running container: `exec`.
//!
//! It gets everything that the container's first process has: cgroups, namespaces, root file
//! system, seccomp filter. One call with a handle on that process (`setns(2)` with a pidfd) enters
//! all namespaces, so they cannot be those of another process. The rest is libcontainer's
//! `container_init_process`, as for the first process.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use libcontainer::process::args::ContainerType;
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::PidfdFlags;
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use super::home;
use super::program::Programs;
use super::spawn::{self, Setup};
use super::supported::{self, Node};
use super::terminal::Wiring;
use super::view::View;
use crate::cgroup::Cgroups;
use crate::config::bundle::Bundle;
use crate::config::identity::ProcessId;
use crate::config::record::ContainerKind;
use crate::engine::BoxError;
use crate::error::{Context, Error};
use crate::policy;
use crate::process::handle::Handle;
use crate::stdio::Stdio;
use crate::sys;

/// One process to add to a container. It cannot be shown, as its arguments and variables may be
/// secrets.
pub(crate) struct Join<'a> {
    pub(crate) programs: Programs<'a>,
    pub(crate) bundle: &'a Bundle,
    /// What the container was made for.
    pub(crate) kind: ContainerKind,
    pub(crate) cgroups: &'a Cgroups,
    /// The container's first process.
    pub(crate) init: ProcessId,
    /// A handle on it.
    pub(crate) handle: &'a OwnedFd,
    pub(crate) process: Process,
    /// The socket on which the process waits to be told to go on.
    pub(crate) notify: PathBuf,
}

/// A process that has joined a container and waits to be told to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) process: ProcessId,
    pub(crate) handle: Handle,
    /// A pipe on which it says why it cannot execute its program.
    pub(crate) failure: Handle,
    /// The shim's end of the terminal, if there is one.
    pub(crate) master: Option<Handle>,
}

impl Join<'_> {
    /// Makes the process, which then waits. Launcher process.
    ///
    /// # Errors
    ///
    /// Why there is no such process; nothing is left of it.
    pub(crate) fn run(self, stdio: Stdio) -> Result<Joined, Error> {
        let (bundle, process) = (self.bundle, &self.process);
        // libcontainer needs a working directory, see `Job::run`.
        rustix::process::chdir(bundle.directory())
            .with_context(|| format!("enter the bundle {}", bundle.directory().display()))?;
        let mut spec = bundle.spec()?;
        supported::check_exec(process, &spec, Node::discover(false))?;
        let root = self.root().context("look into the container")?;
        // What is mounted in the container is seen through its own root.
        let root_path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let mut process = process.clone();
        home::set(&mut process, &root_path, &[])?;
        let mut exec = self
            .programs
            .find(&root_path, &[], &process, Some(self.kind), &spec)?;
        let is_guest = exec.kind() == ContainerKind::Wasm;
        policy::capabilities::complete(&mut process, is_guest);
        exec.limits.apply_to(&mut process);
        supported::complete_process(&mut process);
        let process = &process;
        drop(root);
        let (failure, said) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
        exec.failure = Some(Arc::new(said));
        let wiring = Wiring::new(stdio, &mut exec, self.kind, process, &bundle.private())
            .context("make the streams of the process")?;

        let mut wanted = namespaces(&spec);
        adapt(&mut spec, process.clone(), exec.kind());
        // The container of a guest was made with the walls of guests.
        let view = (is_guest && self.kind == ContainerKind::Linux)
            .then(|| View::new(&exec.limits, &spec, process.cwd()));
        if view.as_ref().is_some_and(View::isolates_network) {
            wanted -= ThreadNameSpaceType::NETWORK;
        }
        spawn::separate_keys(self.programs.options)?;
        sys::process::set_groups(&policy::take_groups(&mut spec)?).context("set the groups")?;
        let set_up = || -> Result<_, BoxError> {
            let mut args = spawn::set_up_args(spec, exec, &self.notify)?;
            let _console = spawn::connect(&mut args, &wiring)?;
            // What only a first process does is left out for this type. libcontainer never looks
            // at its descriptor in the part that we use.
            args.container_type = ContainerType::TenantContainer { exec_notify_fd: -1 };
            spawn::prepare(process)?;
            self.enter(wanted & for_children())?;
            let setup = Setup::fork(&args, || {
                self.cgroups.join()?;
                spawn::label(process)?;
                spawn::set_limits(process)?;
                if let Some(profile) = process.apparmor_profile() {
                    // The container may have no `/proc` to do it in.
                    libcontainer::apparmor::apply_profile(profile)?;
                }
                self.enter(wanted - for_children())?;
                match &view {
                    Some(view) => view
                        .enter()
                        .context("make the guest's view of the container"),
                    None => Ok(()),
                }
                .map_err(Into::into)
            })?;
            let pid = setup.pid();
            let made = setup.ready().and_then(|pid| {
                let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
                Ok((ProcessId::of(pid)?, handle))
            });
            if made.is_err() {
                // Our own child, not waited for yet: the pid is still its.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            made
        };
        let (process, handle) = set_up().context("join the container")?;
        let master = wiring.master().context("set up the terminal")?;
        Ok(Joined {
            process,
            handle: handle.into(),
            failure: failure.into(),
            master: master.map(Into::into),
        })
    }

    /// The root directory of the container's first process.
    fn root(&self) -> Result<OwnedFd, BoxError> {
        let path = format!("/proc/{}/root", self.init.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        // The pid has not been given to another process as long as this one is still there.
        self.init.open().ok_or("its first process has ended")?;
        Ok(root)
    }

    fn enter(&self, namespaces: ThreadNameSpaceType) -> std::io::Result<()> {
        if namespaces.is_empty() {
            return Ok(());
        }
        let handle = self.handle.as_fd();
        Ok(rustix::thread::move_into_thread_name_spaces(
            handle, namespaces,
        )?)
    }
}

/// The namespaces that are entered by the children of the process that asks for it.
fn for_children() -> ThreadNameSpaceType {
    ThreadNameSpaceType::PROCESS_ID | ThreadNameSpaceType::TIME
}

/// The namespaces that a container has for itself or was told to join.
fn namespaces(spec: &Spec) -> ThreadNameSpaceType {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_deref());
    listed
        .unwrap_or_default()
        .iter()
        .map(|namespace| match namespace.typ() {
            LinuxNamespaceType::Mount => ThreadNameSpaceType::MOUNT,
            LinuxNamespaceType::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
            LinuxNamespaceType::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            LinuxNamespaceType::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
            LinuxNamespaceType::User => ThreadNameSpaceType::USER,
            LinuxNamespaceType::Pid => ThreadNameSpaceType::PROCESS_ID,
            LinuxNamespaceType::Network => ThreadNameSpaceType::NETWORK,
            LinuxNamespaceType::Time => ThreadNameSpaceType::TIME,
        })
        .fold(ThreadNameSpaceType::empty(), |all, one| all | one)
}

/// Makes the spec of a container the one of a further process in it.
fn adapt(spec: &mut Spec, mut process: Process, kind: ContainerKind) {
    process.set_apparmor_profile(None);
    spec.set_process(Some(process));
    if let Some(mut linux) = spec.linux().clone() {
        linux.set_namespaces(None);
        linux.set_net_devices(None);
        spec.set_linux(Some(linux));
    }
    if kind == ContainerKind::Wasm {
        policy::restrict(spec);
    }
}

/// Makes a container's spec that of a further process, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(mut spec: Spec, process: Process) {
    namespaces(&spec);
    adapt(&mut spec, process, ContainerKind::Wasm);
    let linux = spec.linux().as_ref();
    assert!(linux.is_none_or(|linux| linux.namespaces().is_none()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        serde_json::from_str(
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["a"],"user":{"uid":0,"gid":0}},
            "linux":{"namespaces":[{"type":"pid"},{"type":"mount"},
            {"type":"network","path":"/run/netns/a"}],
            "seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}}}"#,
        )
        .unwrap()
    }

    #[test]
    fn every_namespace_of_the_container_is_entered_and_no_other() {
        let found = namespaces(&spec());
        let expected = ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::NETWORK;
        assert_eq!(found, expected);
        assert_eq!(found & for_children(), ThreadNameSpaceType::PROCESS_ID);
    }

    #[test]
    fn a_further_process_keeps_the_filter_and_makes_no_namespace() {
        let mut spec = spec();
        let process: Process = serde_json::from_str(
            r#"{"cwd":"/b","args":["b"],"user":{"uid":7,"gid":7},"apparmorProfile":"p"}"#,
        )
        .unwrap();
        adapt(&mut spec, process, ContainerKind::Wasm);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.namespaces().is_none());
        assert!(linux.seccomp().is_some());
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.user().uid(), 7);
        assert_eq!(process.no_new_privileges(), Some(true));
        assert!(process.apparmor_profile().is_none());
    }
}
