//! An additional process in a running container: `exec`.
//!
//! It gets everything that the container's first process has: cgroups, namespaces, root file
//! system, seccomp filter. One call with a handle on that process (`setns(2)` with a pidfd) enters
//! all namespaces, so they cannot be those of another process. The rest is done by
//! [`init`](super::init), as for the first process.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use super::executor::Exec;
use super::home;
use super::init::{self, Common, Further, Launched, Outside, Start, hooks};
use super::program::Programs;
use super::spawn;
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
}

/// A process that has joined a container and waits to be told to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) process: ProcessId,
    pub(crate) handle: Handle,
    /// A byte here has it go on; it ends if this is closed before.
    pub(crate) start: Handle,
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
        let bundle = self.bundle;
        // The shim's own may have been removed, see `Job::run`.
        rustix::process::chdir(bundle.directory())
            .with_context(|| format!("enter the bundle {}", bundle.directory().display()))?;
        let mut spec = bundle.spec()?;
        supported::check_exec(&self.process, &spec, Node::discover(false))?;
        let (process, mut exec) = self.resolve(&spec)?;
        let process = &process;
        let is_guest = exec.kind() == ContainerKind::Wasm;
        let (failure, said) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
        exec.failure = Some(Arc::new(said));
        let wiring = Wiring::new(stdio, &mut exec, self.kind, process)
            .context("make the streams of the process")?;

        let mut wanted = namespaces(&spec);
        let has_user = wanted.contains(ThreadNameSpaceType::USER);
        adapt(&mut spec, process.clone(), exec.kind());
        // The container of a guest was made with the walls of guests.
        let view = (is_guest && self.kind == ContainerKind::Linux)
            .then(|| View::new(&exec.limits, &spec, process.cwd()));
        if view.as_ref().is_some_and(View::isolates_network) {
            wanted -= ThreadNameSpaceType::NETWORK;
        }
        let start = Start::new()?;
        let made = self.make(
            &spec,
            &exec,
            &wiring,
            &start,
            || {
                self.enter(wanted - for_children())?;
                if has_user {
                    init::become_root()?;
                }
                match &view {
                    Some(view) => Ok(view
                        .enter()
                        .context("make the guest's view of the container")?),
                    None => Ok(()),
                }
            },
            wanted,
        )?;
        let process = made.identity()?;
        let master = wiring
            .master(made.terminal)
            .context("set up the terminal")?;
        Ok(Joined {
            process,
            handle: made.handle.into(),
            start: start.tells.into(),
            failure: failure.into(),
            master: master.map(Into::into),
        })
    }

    /// The process with what it leaves open, and what it executes.
    fn resolve(&self, spec: &Spec) -> Result<(Process, Exec), Error> {
        let root = self.root().context("look into the container")?;
        // What is mounted in the container is seen through its own root.
        let root_path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let mut process = self.process.clone();
        inherit(&mut process, spec);
        home::set(&mut process, &root_path, &[])?;
        let exec = self
            .programs
            .find(&root_path, &[], &process, Some(self.kind), spec)?;
        policy::capabilities::complete(&mut process, exec.kind() == ContainerKind::Wasm);
        exec.limits.apply_to(&mut process);
        supported::complete_process(&mut process);
        Ok((process, exec))
    }

    fn make(
        &self,
        spec: &Spec,
        exec: &Exec,
        wiring: &Wiring,
        start: &Start,
        enter: impl Fn() -> Result<(), BoxError>,
        wanted: ThreadNameSpaceType,
    ) -> Result<Launched, Error> {
        let process = spec.process().as_ref();
        let process = process.ok_or_else(|| Error::invalid("no process"))?;
        spawn::prepare(process)?;
        let made_in = spawn::group_to_be_made_in(self.cgroups)?;
        let further = Further {
            common: Common {
                spec,
                process,
                exec,
                streams: wiring.streams(),
                has_user_namespace: wanted.contains(ThreadNameSpaceType::USER),
                new_keyring: !self.programs.options.no_new_keyring,
                proc: spawn::open_proc()?,
                start,
            },
            enter,
        };
        let state = hooks::State::new(self.programs.id, self.bundle.directory(), spec)?;
        let outside = Outside {
            spec,
            process,
            cgroup: made_in.as_ref().map(AsFd::as_fd),
            state: &state,
            is_further: true,
        };
        self.enter(wanted & for_children())
            .context("enter the pid namespace")?;
        outside.further(further, || {
            self.cgroups.join_the_rest().context("join the cgroups")
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

/// What a further process has of the container's, whatever its own says, and what it has if its own says
/// nothing (`runc exec`, `libcontainer/container_linux.go`).
fn inherit(process: &mut Process, container: &Spec) {
    let Some(first) = container.process().as_ref() else {
        return;
    };
    if process.capabilities().is_none() {
        process.set_capabilities(first.capabilities().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(first.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*first.io_priority());
    }
    process.set_oom_score_adj(first.oom_score_adj());
    let mut user = process.user().clone();
    user.set_umask(first.user().umask());
    process.set_user(user);
}

/// Makes the spec of a container the one of a further process in it.
fn adapt(spec: &mut Spec, process: Process, kind: ContainerKind) {
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
    fn what_a_further_process_does_not_say_is_the_containers() {
        let container: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["a"],"oomScoreAdj":7,
            "scheduler":{"policy":"SCHED_BATCH"},
            "ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0},"user":{"uid":0,"gid":0,"umask":63},"capabilities":{"bounding":["CAP_KILL"]}}}"#,
        )
        .unwrap();
        let process = |text: &str| -> Process {
            let text = format!(r#"{{"cwd":"/","args":["b"],"user":{{"uid":7,"gid":7}}{text}}}"#);
            let mut process = serde_json::from_str(&text).unwrap();
            inherit(&mut process, &container);
            process
        };
        let of_container = container.process().as_ref().unwrap();
        let says_nothing = process("");
        assert_eq!(says_nothing.capabilities(), of_container.capabilities());
        assert_eq!(says_nothing.oom_score_adj(), Some(7));
        assert_eq!(says_nothing.user().umask(), Some(63));
        assert_eq!(says_nothing.scheduler(), of_container.scheduler());
        assert_eq!(says_nothing.io_priority(), of_container.io_priority());
        assert_eq!(says_nothing.user().uid(), 7);
        let says = process(r#","oomScoreAdj":1,"capabilities":{}"#);
        assert_ne!(says.capabilities(), of_container.capabilities());
        assert_eq!(says.oom_score_adj(), Some(7));
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
        assert_eq!(process.apparmor_profile().as_deref(), Some("p"));
    }
}
