//! The first process of a container: its cgroups, and the launcher's part in making it.
//!
//! It takes as few processes and system calls as it can. libcontainer's own way goes through an
//! intermediate process, looks up each cgroup controller's place anew, and moves that process into each
//! v1 hierarchy through `cgroup.procs`, for which the kernel takes a lock that waits for an RCU grace
//! period, milliseconds in which nothing happens. Here the process moves itself on v1, and is made in its
//! group on v2 (`CLONE_INTO_CGROUP`). See `docs/decisions/0001-process-model.md`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt};
use oci_spec::runtime::{Linux, LinuxMemory, LinuxResources, Process, Spec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use super::executor::Exec;
use super::init::{Common, First, Launched, Namespaces, Outside, Start, hooks};
use super::root::{self, Root};
use super::terminal::Wiring;
use crate::cgroup::{Cgroups, GroupPath, Hierarchies, Version, devices};
use crate::config::bundle::Bundle;
use crate::config::options::RuntimeOptions;
use crate::config::record::{ContainerKind, Record};
use crate::error::{Context, Error};
use crate::process::launcher;
use crate::sys;
use crate::sys::process::Forked;

/// What it takes to spawn the first process. It cannot be shown, as the spec may hold secrets.
pub(crate) struct Spawn<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Bundle,
    pub(crate) hierarchies: &'a Hierarchies,
    pub(crate) spec: Spec,
    pub(crate) exec: Exec,
    pub(crate) options: &'a RuntimeOptions,
}

/// A first process that waits for a byte on the other end of `start`.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) process: Launched,
    pub(crate) start: OwnedFd,
}

impl Spawn<'_> {
    /// Builds the sandbox; the first process then waits for `start`. Records what has to be
    /// cleaned up before it exists.
    pub(crate) fn run(self, wiring: &Wiring, record: &mut Record) -> Result<Spawned, Error> {
        let (linux, process) = match (self.spec.linux(), self.spec.process()) {
            (Some(linux), Some(process)) => (linux, process),
            _ => {
                return Err(Error::invalid(
                    "config.json has no linux or no process section",
                ));
            }
        };
        let rules = devices::Rules::of_spec(&self.spec)?;
        // Until there is another process in the groups of systemd.
        let _placeholder = match self.options.systemd_cgroup {
            true => Some(self.make_scope(linux, record, &rules)?),
            false => {
                self.make_groups(linux, record, &rules)?;
                None
            }
        };
        prepare(process)?;
        let start = Start::new()?;
        let state = hooks::State::new(self.id, self.bundle.directory(), &self.spec)?;
        let made_in = group_to_be_made_in(&record.cgroups)?;
        let outside = Outside {
            spec: &self.spec,
            process,
            cgroup: made_in.as_ref().map(AsFd::as_fd),
            state: &state,
            is_further: false,
        };
        let first = self.first(wiring, process, linux, &record.cgroups, (&start, &state))?;
        let cgroups = record.cgroups.clone();
        let join = || cgroups.join_the_rest().context("join the cgroups");
        let process = outside.first(first, join)?;
        Ok(Spawned {
            process,
            start: start.tells,
        })
    }

    fn first<'a>(
        &'a self,
        wiring: &'a Wiring,
        process: &'a Process,
        linux: &Linux,
        cgroups: &Cgroups,
        (start, state): (&'a Start, &'a hooks::State),
    ) -> Result<First<'a>, Error> {
        let root = self.spec.root().as_ref();
        let root = root.ok_or_else(|| Error::invalid("config.json has no root"))?;
        let root = std::fs::canonicalize(root.path()).context("find the root")?;
        let settings = root::Settings {
            spec: &self.spec,
            root: &root,
            no_pivot: self.options.no_pivot_root,
            cgroups,
            hierarchies: self.hierarchies,
            is_guest: self.exec.kind() == ContainerKind::Wasm,
        };
        let namespaces = Namespaces::new(linux)?;
        Ok(First {
            common: Common {
                spec: &self.spec,
                process,
                exec: &self.exec,
                streams: wiring.streams(),
                has_user_namespace: namespaces.has_user(),
                new_keyring: !self.options.no_new_keyring,
                proc: open_proc()?,
                start,
            },
            root: Root::prepare(&settings)?,
            namespaces,
            state,
        })
    }

    /// Makes the groups that the spec names, with their limits.
    fn make_groups(
        &self,
        linux: &Linux,
        record: &mut Record,
        rules: &devices::Rules,
    ) -> Result<(), Error> {
        let path = self.group_path(linux)?;
        let planned = self.hierarchies.planned(&path);
        // Making it would leave those above.
        planned.can_be().context("make the cgroups")?;
        record.cgroups = planned;
        self.bundle.write_record(record)?;
        self.hierarchies
            .make(&record.cgroups)
            .context("make the cgroups")?;
        if let Some(resources) = linux.resources() {
            limit(resources, &path, &record.cgroups, self.hierarchies)?;
        }
        // After the limits: libcgroups allows devices of its own choice.
        devices::enforce(&record.cgroups, rules)
    }

    /// The path of the spec, or with runc's name for one that has none.
    fn group_path(&self, linux: &Linux) -> Result<GroupPath, Error> {
        match linux.cgroups_path().as_deref() {
            Some(path) if !path.as_os_str().is_empty() => GroupPath::parse(path).ok_or_else(|| {
                let path = path.display();
                Error::invalid(format!("linux.cgroupsPath: {path}: not a path of a cgroup"))
            }),
            _ => Ok(GroupPath::top().child(self.id)),
        }
    }

    /// Has systemd make the groups, with their limits. It makes a scope of a process only, so that is a
    /// placeholder: the first process is made in groups that are complete, as without systemd.
    fn make_scope(
        &self,
        linux: &Linux,
        record: &mut Record,
        rules: &devices::Rules,
    ) -> Result<Placeholder, Error> {
        let config = CgroupConfig {
            cgroup_path: linux.cgroups_path().clone().unwrap_or_default(),
            systemd_cgroup: true,
            container_name: self.id.to_owned(),
        };
        let manager = libcgroups::common::create_cgroup_manager(config);
        let manager = manager.context("speak to systemd")?;
        let placeholder = Placeholder::new().context("make a process for systemd")?;
        let pid = placeholder.pid;
        let number = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
        manager
            .add_task(number)
            .context("make a scope of systemd")?;
        let found = self.hierarchies.of_container(pid);
        record.cgroups = found.context("find the cgroups")?;
        self.bundle.write_record(record)?;
        if let Some(resources) = linux.resources() {
            apply(&manager, resources)?;
        }
        devices::enforce(&record.cgroups, rules)?;
        Ok(placeholder)
    }
}

/// A child that does nothing until it is dropped, or until this process ends.
#[derive(Debug)]
struct Placeholder {
    pid: Pid,
    /// Closed by dropping it, which it waits for.
    wakes: Option<OwnedFd>,
}

impl Placeholder {
    fn new() -> std::io::Result<Self> {
        let (waits, wakes) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        match sys::process::fork()? {
            Forked::Child => {
                launcher::leave_the_answer();
                drop(wakes);
                let _ = rustix::io::retry_on_intr(|| rustix::io::read(&waits, &mut [0]));
                sys::process::exit_now(0)
            }
            Forked::Parent(pid) => Ok(Self {
                pid: Pid::from_raw(pid).ok_or(std::io::ErrorKind::InvalidData)?,
                wakes: Some(wakes),
            }),
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        self.wakes.take();
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// The `/proc` of the node, for a process that is going to have another one or none.
pub(super) fn open_proc() -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).context("open /proc")
}

/// The group of v2 that a process is made in; it joins others itself.
pub(super) fn group_to_be_made_in(cgroups: &Cgroups) -> Result<Option<OwnedFd>, Error> {
    let Version::V2(group) = cgroups.version() else {
        return Ok(None);
    };
    let opened = File::open(group.directory()).context("open the cgroup")?;
    Ok(Some(opened.into()))
}

/// What has to be done outside, because the process inherits it.
pub(super) fn prepare(process: &Process) -> Result<(), Error> {
    match process.oom_score_adj() {
        Some(score) => std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .with_context(|| format!("set oom_score_adj to {score}")),
        None => Ok(()),
    }
}

/// Applies the resource limits of a spec, but for its device rules.
fn limit(
    resources: &LinuxResources,
    path: &GroupPath,
    cgroups: &Cgroups,
    hierarchies: &Hierarchies,
) -> Result<(), Error> {
    let mut rest = resources.clone();
    rest.set_devices(None);
    // The weight that containerd gives every container is not worth a search for controllers.
    if let (Some(directory), Some(mut cpu)) = (cgroups.controller("cpu"), rest.cpu().clone()) {
        // 0 is none, as for runc.
        if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
            std::fs::write(directory.join("cpu.shares"), shares.to_string())
                .context("set the container's cpu shares")?;
        }
        cpu.set_shares(None);
        rest.set_cpu(Some(cpu).filter(|cpu| *cpu != Default::default()));
    }
    if rest == none() {
        return Ok(());
    }
    let manager = match (cgroups.version(), hierarchies.unified()) {
        (Version::V2(_), Some(unified)) => {
            let (top, below) = (unified.point().to_owned(), path.as_path().to_owned());
            let manager = libcgroups::v2::manager::Manager::new(top, below);
            manager
                .context("find the cgroup")
                .map(AnyCgroupManager::V2)?
        }
        _ => {
            let manager = libcgroups::v1::Manager::new(path.as_path());
            manager
                .context("find the controllers")
                .map(AnyCgroupManager::V1)?
        }
    };
    apply(&manager, &rest)
}

fn apply(manager: &AnyCgroupManager, resources: &LinuxResources) -> Result<(), Error> {
    let memory = resources.memory().as_ref();
    let options = ControllerOpt {
        resources,
        // Of v1; v2 has no such setting.
        disable_oom_killer: memory.and_then(LinuxMemory::disable_oom_killer) == Some(true),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_there_until_it_is_dropped() {
        let placeholder = Placeholder::new().unwrap();
        let path = format!("/proc/{}", placeholder.pid.as_raw_nonzero());
        assert!(std::fs::exists(&path).unwrap());
        drop(placeholder);
        assert!(!std::fs::exists(&path).unwrap());
    }

    #[test]
    fn resources_that_limit_nothing_need_no_search_for_controllers() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}]}}}"#,
        )
        .unwrap();
        let mut resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        resources.set_devices(None);
        assert_eq!(resources, none());
    }
}
