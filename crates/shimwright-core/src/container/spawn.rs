//! The first process of a container, with as few processes and system calls as it takes.
//!
//! libcontainer's own way to it goes through an intermediate process and looks up each cgroup
//! controller's place anew; and it moves that process into each v1 hierarchy through
//! `cgroup.procs`, for which the kernel takes a lock that waits for an RCU grace period, milliseconds
//! in which nothing happens. What is inside the sandbox is still all libcontainer's: this module
//! replaces `container_main_process` and `container_intermediate_process`, and calls its
//! `container_init_process`. See `docs/decisions/0001-process-model.md`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt};
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::hooks::run_hooks;
use libcontainer::notify_socket::{NOTIFY_FILE, NotifyListener};
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::channel::{self, InitSender, MainReceiver, MainSender};
use libcontainer::process::init::container_init_process;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::validator::Validator;
use oci_spec::runtime::{
    Hook, Linux, LinuxNamespaceType, LinuxResources, LinuxSeccompAction, Process, Spec,
};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::executor::Exec;
use super::terminal::Wiring;
use crate::cgroup::{Cgroups, GroupPath, Hierarchies, devices};
use crate::config::bundle::Bundle;
use crate::config::options::RuntimeOptions;
use crate::config::record::Record;
use crate::engine::BoxError;
use crate::error::{Context, Error};
use crate::sys;
use crate::sys::process::Forked;

/// Whether this module can build the sandbox of a spec; otherwise libcontainer's builder must.
///
/// What is left to the builder: v2 hierarchies and systemd, namespaces that need their maps
/// or offsets written from outside, and requests that the process makes while it is set up.
pub(crate) fn can(spec: &Spec, hierarchies: &Hierarchies) -> bool {
    let Some(linux) = spec.linux() else {
        return false;
    };
    let needs_outside = |kind| matches!(kind, LinuxNamespaceType::User | LinuxNamespaceType::Time);
    let listens = linux.seccomp().as_ref().is_some_and(|seccomp| {
        seccomp.listener_path().is_some()
            || seccomp.default_action() == LinuxSeccompAction::ScmpActNotify
            || seccomp
                .syscalls()
                .iter()
                .flatten()
                .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
    });
    let maps_ids = spec
        .mounts()
        .iter()
        .flatten()
        .any(|mount| mount.uid_mappings().is_some() || mount.gid_mappings().is_some());
    hierarchies.is_legacy()
        && cgroups_path(linux).is_some()
        && !linux
            .namespaces()
            .iter()
            .flatten()
            .any(|namespace| needs_outside(namespace.typ()))
        && !listens
        && !maps_ids
        && linux
            .net_devices()
            .as_ref()
            .is_none_or(|devices| devices.is_empty())
        && linux.intel_rdt().is_none()
}

fn cgroups_path(linux: &Linux) -> Option<GroupPath> {
    GroupPath::parse(linux.cgroups_path().as_deref()?)
}

/// What it takes to spawn the first process. It cannot be shown, as the spec may hold secrets.
pub(crate) struct Spawn<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    pub(crate) hierarchies: &'a Hierarchies,
    pub(crate) spec: Spec,
    pub(crate) exec: Exec,
    pub(crate) no_pivot: bool,
    /// The mount namespace of the node, if this process is in another one.
    pub(crate) outside: Option<File>,
}

impl Spawn<'_> {
    /// Builds the sandbox; the first process then waits for `start`. Records what has to be
    /// cleaned up before it exists.
    pub(crate) fn run(self, wiring: &Wiring, record: &mut Record) -> Result<Pid, Error> {
        Validator::validate_spec(&self.spec).context("accept config.json")?;
        let (linux, process) = match (self.spec.linux(), self.spec.process()) {
            (Some(linux), Some(process)) => (linux, process),
            _ => {
                return Err(Error::invalid(
                    "config.json has no linux or no process section",
                ));
            }
        };
        let path = cgroups_path(linux).ok_or_else(|| Error::invalid("no path of cgroups"))?;
        let rules = devices::Rules::of_spec(&self.spec)?;
        record.cgroups = self.hierarchies.planned(&path);
        self.bundle.write_record(record)?;
        self.hierarchies
            .make(&record.cgroups)
            .context("make the cgroups")?;
        if let Some(resources) = linux.resources() {
            limit(resources, &path, &record.cgroups)?;
        }
        // After the limits: libcgroups allows devices of its own choice.
        devices::enforce(&record.cgroups, &rules)?;
        self.build(&record.cgroups, linux, process, wiring)
            .context("build the sandbox")
    }

    fn build(
        &self,
        cgroups: &Cgroups,
        linux: &Linux,
        process: &Process,
        wiring: &Wiring,
    ) -> Result<Pid, BoxError> {
        let directory = self.bundle.libcontainer().join(self.id);
        std::fs::create_dir_all(&directory)?;
        let notify_path = directory.join(NOTIFY_FILE);
        let mut container = Container::new(
            self.id,
            ContainerStatus::Creating,
            None,
            self.bundle.directory(),
            &directory,
        )?;
        container
            .set_systemd(false)
            .set_annotations(self.spec.annotations().clone());
        let rootfs = std::fs::canonicalize(
            self.spec
                .root()
                .as_ref()
                .ok_or("config.json has no root")?
                .path(),
        )?;
        let mut args = set_up_args(self.spec.clone(), self.exec.clone(), &notify_path)?;
        let _console = connect(&mut args, wiring)?;
        args.rootfs = rootfs;
        args.container = Some(container.clone());
        args.cgroup_config.container_name = self.id.to_owned();
        args.no_pivot = self.no_pivot;
        prepare(process)?;

        let outside = enter_wanted_pid_namespace(linux)?;
        let mut setup = Setup::fork(&args, || {
            cgroups.join()?;
            label(process)?;
            set_limits(process)
        })?;
        // Hooks belong outside.
        if let Some(mounts) = &self.outside {
            enter_namespace(mounts, LinkNameSpaceType::Mount)?;
            rustix::process::chdir(self.bundle.directory())?;
        }
        if let Some(outside) = outside {
            enter_namespace(&outside, LinkNameSpaceType::ProcessID)?;
        }
        container.set_pid(setup.pid().as_raw_nonzero().get());
        if let Some(hooks) = self.spec.hooks() {
            setup.run_hooks(&[hooks.prestart(), hooks.create_runtime()], &container)?;
        }
        let pid = setup.ready()?;
        container.set_status(ContainerStatus::Created).save()?;
        Ok(pid)
    }
}

/// What libcontainer needs to set up a process, as far as all processes have it in common.
pub(super) fn set_up_args(
    spec: Spec,
    exec: Exec,
    notify_path: &Path,
) -> Result<ContainerArgs, BoxError> {
    let cgroup_path = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().clone());
    Ok(ContainerArgs {
        container_type: ContainerType::InitContainer,
        syscall: SyscallType::Linux,
        spec: Rc::new(spec),
        rootfs: PathBuf::new(),
        console_socket: None,
        notify_listener: NotifyListener::new(notify_path)?,
        preserve_fds: 0,
        container: None,
        user_ns_config: None,
        cgroup_config: CgroupConfig {
            cgroup_path: cgroup_path.unwrap_or_default(),
            systemd_cgroup: false,
            container_name: String::new(),
        },
        detached: true,
        executor: Box::new(exec),
        no_pivot: false,
        stdin: None,
        stdout: None,
        stderr: None,
        as_sibling: false,
        pid_file: None,
    })
}

/// Connects the streams of a process, and returns what it is to inherit for that.
pub(super) fn connect(
    args: &mut ContainerArgs,
    wiring: &Wiring,
) -> Result<Option<UnixStream>, BoxError> {
    match wiring {
        Wiring::Streams { streams, .. } => {
            args.stdin = Some(streams.stdin.as_raw_fd());
            args.stdout = Some(streams.stdout.as_raw_fd());
            args.stderr = Some(streams.stderr.as_raw_fd());
            Ok(None)
        }
        Wiring::Console(console, _) => {
            let connection = console.connect()?;
            args.console_socket = Some(connection.as_raw_fd());
            Ok(Some(connection))
        }
    }
}

/// What has to be done outside, because the process inherits it.
pub(super) fn prepare(process: &Process) -> Result<(), BoxError> {
    if let Some(score) = process.oom_score_adj() {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())?;
    }
    Ok(())
}

/// Gives the process that is to be made a session keyring of its own, or the keys of one container would
/// be another's (`session-keyring(7)`).
pub(super) fn separate_keys(options: &RuntimeOptions) -> Result<(), Error> {
    if options.no_new_keyring {
        return Ok(());
    }
    sys::process::new_session_keyring().context("make a session keyring")
}

/// Has the program that the calling process executes next run under its SELinux label
/// (`/proc/thread-self/attr/exec`), which libcontainer leaves out. A node without SELinux has refused
/// the label before.
///
/// There is no test of it, as no machine of the project has SELinux.
pub(super) fn label(process: &Process) -> Result<(), BoxError> {
    match process.selinux_label().as_deref() {
        Some(label) if !label.is_empty() => {
            Ok(std::fs::write("/proc/thread-self/attr/exec", label)?)
        }
        _ => Ok(()),
    }
}

/// Sets the limits of the spec for the calling process.
pub(super) fn set_limits(process: &Process) -> Result<(), BoxError> {
    let syscall = SyscallType::Linux.create_syscall();
    for limit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(limit)?;
    }
    Ok(())
}

/// A process that libcontainer sets up, and our side of the conversation with it
/// (`container_main_process.rs` there).
pub(super) struct Setup {
    pid: Pid,
    from_init: MainReceiver,
    to_init: InitSender,
}

impl Setup {
    /// Forks a process that does `join` and is then set up; it joins its cgroups before it
    /// allocates anything.
    pub(super) fn fork(
        args: &ContainerArgs,
        join: impl FnOnce() -> Result<(), BoxError>,
    ) -> Result<Self, BoxError> {
        let (mut to_main, from_init) = channel::main_channel()?;
        let (to_init, mut from_main) = channel::init_channel()?;
        let pid = match sys::process::fork()? {
            Forked::Child => {
                // With our ends closed, a launcher that is killed is noticed.
                let outcome = from_init
                    .close()
                    .and_then(|()| to_init.close())
                    .map_err(BoxError::from)
                    .and_then(|()| join())
                    .and_then(|()| Ok(container_init_process(args, &mut to_main, &mut from_main)?));
                fail(&mut to_main, outcome);
                sys::process::exit_now(crate::engine::exit::Status::ENGINE_FAILED.code())
            }
            Forked::Parent(pid) => pid,
        };
        to_main.close()?;
        from_main.close()?;
        Ok(Self {
            pid: Pid::from_raw(pid).ok_or("fork gave no pid")?,
            from_init,
            to_init,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Runs the hooks of these stages while the process waits for them.
    fn run_hooks(
        &mut self,
        stages: &[&Option<Vec<Hook>>],
        container: &Container,
    ) -> Result<(), BoxError> {
        self.from_init.wait_for_hook_request()?;
        for stage in stages {
            run_hooks(stage.as_ref(), Some(&container.state), None, None, None)?;
        }
        Ok(self.to_init.hook_done()?)
    }

    /// Waits until the process is ready, or says why it never will be.
    pub(super) fn ready(mut self) -> Result<Pid, BoxError> {
        self.to_init.close()?;
        self.from_init.wait_for_init_ready()?;
        self.from_init.close()?;
        Ok(self.pid)
    }
}

fn fail(to_main: &mut MainSender, outcome: Result<(), BoxError>) {
    if let Err(error) = outcome {
        // Nobody is listening once the process was ready, and then this is not reached.
        let _ = to_main.exec_failed(crate::error::chain(&*error));
    }
}

/// Enters the pid namespace the spec asks for, or a new one, with the children that are forked
/// from here on. Returns the one they were in before, if that has changed.
fn enter_wanted_pid_namespace(linux: &Linux) -> Result<Option<File>, BoxError> {
    let wanted = linux
        .namespaces()
        .iter()
        .flatten()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::Pid);
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let outside = File::open("/proc/self/ns/pid")?;
    match wanted.path() {
        Some(path) => enter_namespace(&File::open(path)?, LinkNameSpaceType::ProcessID)?,
        None => sys::process::unshare(UnshareFlags::NEWPID)?,
    }
    Ok(Some(outside))
}

/// Enters a namespace of this type; one of pids is entered by the children that are forked later.
fn enter_namespace(namespace: impl AsFd, kind: LinkNameSpaceType) -> Result<(), BoxError> {
    Ok(rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(kind),
    )?)
}

/// Applies the resource limits of a spec, but for its device rules.
fn limit(resources: &LinuxResources, path: &GroupPath, cgroups: &Cgroups) -> Result<(), Error> {
    let mut rest = resources.clone();
    rest.set_devices(None);
    // The weight that containerd gives every container is not worth a search for controllers.
    if let (Some(directory), Some(mut cpu)) = (cgroups.controller("cpu"), rest.cpu().clone()) {
        if let Some(shares) = cpu.shares() {
            std::fs::write(directory.join("cpu.shares"), shares.to_string())
                .context("set the container's cpu shares")?;
        }
        cpu.set_shares(None);
        rest.set_cpu(Some(cpu).filter(|cpu| *cpu != Default::default()));
    }
    if rest == none() {
        return Ok(());
    }
    let manager = libcgroups::v1::Manager::new(path.as_path()).context("find the controllers")?;
    let options = ControllerOpt {
        resources: &rest,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager
        .apply(&options)
        .context("limit the container's resources")
}

/// Resources that limit nothing.
fn none() -> LinuxResources {
    let mut none = LinuxResources::default();
    none.set_devices(None);
    none
}

/// Says whether this module can build the sandbox of a spec, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(spec: &Spec) {
    can(spec, &Hierarchies::default());
    if let Some(path) = spec.linux().as_ref().and_then(cgroups_path) {
        use std::path::Component;
        let is_inside = |part| matches!(part, Component::RootDir | Component::Normal(_));
        assert!(path.as_path().components().all(is_inside), "{path:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(linux: &str) -> Spec {
        serde_json::from_str(&format!(r#"{{"ociVersion":"1.0.2","linux":{{{linux}}}}}"#)).unwrap()
    }

    #[test]
    fn resources_that_limit_nothing_need_no_search_for_controllers() {
        let spec = spec(r#""resources":{"devices":[{"allow":false,"access":"rwm"}]}"#);
        let mut resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        resources.set_devices(None);
        assert_eq!(resources, none());
    }
}
