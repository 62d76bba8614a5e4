//! The process between the launcher and the first process of a container with a user namespace.
//!
//! It enters the namespaces that the node owns, then the user namespace, and there makes the first
//! process, so that all further namespaces belong to that user namespace (`user_namespaces(7)`). The
//! first process is a child of the shim process (`CLONE_PARENT`), as without a user namespace.

use std::io;
use std::os::fd::BorrowedFd;

use oci_spec::runtime::{Linux, LinuxIdMapping};
use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::namespaces::{self, Plan, User, Wanted};
use super::setup::Channel;
use crate::error::{Context, Error};
use crate::sys;
use crate::sys::process::{Forked, NewProcess};

/// The maps of ids of a user namespace, as the kernel reads them.
#[derive(Clone, Debug)]
pub(in crate::container) struct Maps {
    uids: String,
    gids: String,
}

impl Maps {
    pub(super) fn of(linux: &Linux) -> Self {
        let lines = |maps: &Option<Vec<LinuxIdMapping>>| -> String {
            let maps = maps.iter().flatten();
            let line = |map: &LinuxIdMapping| {
                format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())
            };
            maps.map(line).collect()
        };
        Self {
            uids: lines(linux.uid_mappings()),
            gids: lines(linux.gid_mappings()),
        }
    }

    /// Writes the maps of a process that has made a user namespace. Each file is written once, at once.
    pub(super) fn write(&self, of: Pid) -> io::Result<()> {
        let pid = of.as_raw_nonzero();
        std::fs::write(format!("/proc/{pid}/uid_map"), &self.uids)?;
        std::fs::write(format!("/proc/{pid}/gid_map"), &self.gids)
    }
}

/// Enters the user namespace of `plan` and makes the first process there. Returns in the first process;
/// the calling one ends.
pub(super) fn pass(plan: &mut Plan, channel: &Channel) -> Result<(), Error> {
    plan.enter_the_nodes()
        .context("enter the namespaces of the node")?;
    match &plan.user {
        None => return Ok(()),
        Some(User::Joined(path)) => {
            namespaces::enter(path, LinkNameSpaceType::User).context("enter the user namespace")?;
        }
        Some(User::New(_)) => {
            sys::process::unshare(UnshareFlags::NEWUSER).context("make a user namespace")?;
            channel.ask_for_maps()?;
        }
    }
    become_root().context("become root in the user namespace")?;
    let new = NewProcess {
        pid_namespace: matches!(plan.pid, Some(Wanted::New)),
        cgroup: None::<BorrowedFd<'_>>,
    };
    match sys::process::clone(&new).context("make the first process")? {
        Forked::Child => Ok(()),
        Forked::Parent(pid) => {
            let told = channel.forked(pid);
            sys::process::exit_now(u8::from(told.is_err()));
        }
    }
}

/// Becomes the first user of the user namespace that this process has entered.
pub(in crate::container) fn become_root() -> io::Result<()> {
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    // The groups are the node's. A namespace may forbid to change them, and then shows them as nobody's.
    match sys::process::set_groups(&[]) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    rustix::thread::set_thread_res_gid(group, group, group)?;
    Ok(rustix::thread::set_thread_res_uid(user, user, user)?)
}
