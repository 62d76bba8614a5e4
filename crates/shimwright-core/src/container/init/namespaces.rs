//! The namespaces of a container (`namespaces(7)`; OCI runtime spec, "Namespaces").

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::user::Maps;
use crate::error::Error;
use crate::sys;

/// What a container has of a type of namespace.
#[derive(Debug)]
pub(super) enum Wanted {
    /// One of its own.
    New,
    /// One that is there.
    Joined(OwnedFd),
}

/// The user namespace of a container.
#[derive(Debug)]
pub(super) enum User {
    New(Maps),
    Joined(OwnedFd),
}

/// The namespaces of a container that is to be made.
#[derive(Debug)]
pub(in crate::container) struct Plan {
    /// Those that the first process enters itself. The mount namespace is the last, as the others may be
    /// files in the one before.
    joined: Vec<(LinkNameSpaceType, OwnedFd)>,
    new: UnshareFlags,
    pub(super) pid: Option<Wanted>,
    pub(super) user: Option<User>,
    time: Option<Wanted>,
    /// What `timens_offsets` is to say.
    offsets: String,
}

impl Plan {
    /// Opens the namespaces that are there. Launcher process.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the one that is not of its type.
    pub(in crate::container) fn new(linux: &Linux) -> Result<Self, Error> {
        let mut plan = Self {
            joined: Vec::new(),
            new: UnshareFlags::empty(),
            pid: None,
            user: None,
            time: None,
            offsets: offsets(linux),
        };
        for namespace in linux.namespaces().iter().flatten() {
            let wanted = open(namespace)?;
            match (namespace.typ(), wanted) {
                (LinuxNamespaceType::Pid, wanted) => plan.pid = Some(wanted),
                (LinuxNamespaceType::Time, wanted) => plan.time = Some(wanted),
                (LinuxNamespaceType::User, Wanted::Joined(path)) => {
                    plan.user = Some(User::Joined(path));
                }
                (LinuxNamespaceType::User, Wanted::New) => {
                    plan.user = Some(User::New(Maps::of(linux)));
                }
                (kind, Wanted::New) => plan.new |= unshare_flag(kind),
                (kind, Wanted::Joined(path)) => plan.joined.push((link_type(kind), path)),
            }
        }
        plan.joined
            .sort_by_key(|(kind, _)| *kind == LinkNameSpaceType::Mount);
        Ok(plan)
    }

    /// Whether the container is in a user namespace.
    pub(in crate::container) fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// Whether the container has a network namespace that nobody has set up.
    pub(super) fn has_new_network(&self) -> bool {
        self.new.contains(UnshareFlags::NEWNET)
    }

    /// Moves the calling process into all but the user, pid and time namespaces.
    pub(super) fn enter(&self) -> io::Result<()> {
        for (kind, namespace) in &self.joined {
            enter(namespace, *kind)?;
        }
        if self.new.is_empty() {
            return Ok(());
        }
        sys::process::unshare(self.new)
    }

    /// Moves the calling process, which is about to enter a user namespace, into those that it will not
    /// be able to enter later. The others are left for [`enter`](Self::enter).
    pub(super) fn enter_those_of_the_node(&mut self) -> io::Result<()> {
        let mut left = Vec::new();
        for (kind, namespace) in self.joined.drain(..) {
            match enter(&namespace, kind) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    left.push((kind, namespace));
                }
                Err(error) => return Err(error),
            }
        }
        self.joined = left;
        match &self.pid {
            Some(Wanted::Joined(path)) => enter(path, LinkNameSpaceType::ProcessID),
            _ => Ok(()),
        }
    }

    /// Has the children of the calling process be in the time namespace, and in the pid namespace if that
    /// is one that is there. The returned value has what they were in before.
    pub(super) fn enter_for_children(&self) -> io::Result<Outside> {
        let mut outside = Outside::default();
        if let Some(wanted) = &self.time {
            outside.time = Some(File::open("/proc/self/ns/time")?.into());
            match wanted {
                Wanted::Joined(path) => enter(path, LinkNameSpaceType::Time)?,
                Wanted::New => {
                    sys::process::unshare(UnshareFlags::NEWTIME)?;
                    if !self.offsets.is_empty() {
                        std::fs::write("/proc/self/timens_offsets", &self.offsets)?;
                    }
                }
            }
        }
        // With a user namespace, the process in between enters it.
        if let (Some(Wanted::Joined(path)), None) = (&self.pid, &self.user) {
            outside.pid = Some(File::open("/proc/self/ns/pid_for_children")?.into());
            enter(path, LinkNameSpaceType::ProcessID)?;
        }
        Ok(outside)
    }
}

/// The namespaces of the node that the launcher has to be in for hooks.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pid: Option<OwnedFd>,
    time: Option<OwnedFd>,
}

impl Outside {
    /// Has the children of the calling process be there again.
    pub(super) fn return_to(self) -> io::Result<()> {
        if let Some(pid) = self.pid {
            enter(&pid, LinkNameSpaceType::ProcessID)?;
        }
        match self.time {
            Some(time) => enter(&time, LinkNameSpaceType::Time),
            None => Ok(()),
        }
    }
}

fn open(namespace: &LinuxNamespace) -> Result<Wanted, Error> {
    let Some(path) = namespace
        .path()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty())
    else {
        return Ok(Wanted::New);
    };
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|error| {
        let (kind, path) = (namespace.typ(), path.display());
        Error::invalid(format!("linux.namespaces: {kind}: {path}: {error}"))
    })?;
    Ok(Wanted::Joined(opened))
}

/// Enters a namespace of this type; those of pids and of time are entered by children.
pub(super) fn enter(namespace: impl AsFd, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(kind),
    )?)
}

fn link_type(kind: LinuxNamespaceType) -> LinkNameSpaceType {
    match kind {
        LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
        LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        LinuxNamespaceType::User => LinkNameSpaceType::User,
        LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
        LinuxNamespaceType::Network => LinkNameSpaceType::Network,
        LinuxNamespaceType::Time => LinkNameSpaceType::Time,
    }
}

fn unshare_flag(kind: LinuxNamespaceType) -> UnshareFlags {
    match kind {
        LinuxNamespaceType::Mount => UnshareFlags::NEWNS,
        LinuxNamespaceType::Cgroup => UnshareFlags::NEWCGROUP,
        LinuxNamespaceType::Uts => UnshareFlags::NEWUTS,
        LinuxNamespaceType::Ipc => UnshareFlags::NEWIPC,
        LinuxNamespaceType::User => UnshareFlags::NEWUSER,
        LinuxNamespaceType::Pid => UnshareFlags::NEWPID,
        LinuxNamespaceType::Network => UnshareFlags::NEWNET,
        LinuxNamespaceType::Time => UnshareFlags::NEWTIME,
    }
}

/// `timens_offsets` of `time_namespaces(7)`.
fn offsets(linux: &Linux) -> String {
    let offsets = linux.time_offsets().iter().flatten();
    offsets
        .map(|(clock, offset)| {
            let (seconds, rest) = (offset.secs(), offset.nanosecs());
            format!(
                "{clock} {} {}\n",
                seconds.unwrap_or_default(),
                rest.unwrap_or_default()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(namespaces: &str) -> Result<Plan, Error> {
        let linux =
            format!(r#"{{"namespaces":{namespaces},"timeOffsets":{{"boottime":{{"secs":5}}}}}}"#);
        Plan::new(&serde_json::from_str(&linux).unwrap())
    }

    #[test]
    fn new_ones_and_those_that_are_there_are_told_apart() {
        let plan = plan(
            r#"[{"type":"mount","path":"/proc/self/ns/mnt"},{"type":"network","path":"/proc/self/ns/net"},
            {"type":"uts"},{"type":"ipc","path":""},{"type":"pid"},{"type":"time"}]"#,
        )
        .unwrap();
        let joined: Vec<_> = plan.joined.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            joined,
            [LinkNameSpaceType::Network, LinkNameSpaceType::Mount]
        );
        assert_eq!(plan.new, UnshareFlags::NEWUTS | UnshareFlags::NEWIPC);
        assert!(matches!(plan.pid, Some(Wanted::New)) && plan.user.is_none());
        assert_eq!(plan.offsets, "boottime 5 0\n");
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let error = plan(r#"[{"type":"network","path":"/no/such"}]"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("net: /no/such"), "{error}");
    }
}
