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
use crate::container::root::ids;
use crate::error::{Context, Error};
use crate::sys;
use crate::sys::process::{Cloned, NewProcess};

/// The maps of ids of a user namespace.
#[derive(Clone, Debug)]
pub(in crate::container) struct Maps {
    users: Vec<ids::Range>,
    groups: Vec<ids::Range>,
}

impl Maps {
    pub(super) fn of(linux: &Linux) -> Self {
        let ranges =
            |maps: &Option<Vec<LinuxIdMapping>>| ids::ranges(maps.as_deref().unwrap_or_default());
        Self {
            users: ranges(linux.uid_mappings()),
            groups: ranges(linux.gid_mappings()),
        }
    }

    /// Writes the maps of a process that has made a user namespace.
    pub(super) fn write(&self, of: Pid) -> io::Result<()> {
        ids::write(of.as_raw_nonzero().get(), &self.users, &self.groups)
    }
}

/// Enters the user namespace of `plan` and makes the first process there. Returns in the first process;
/// the calling one ends.
pub(super) fn pass(plan: &mut Plan, channel: &Channel) -> Result<(), Error> {
    plan.enter_those_of_the_node()
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
        Cloned::New => Ok(()),
        Cloned::Caller(pid, handle) => {
            let told = channel.cloned(pid, handle);
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
