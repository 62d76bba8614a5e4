//! The user, the groups and the capabilities of a process (`credentials(7)`, `capabilities(7)`).

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use libcontainer::capabilities::CapabilityExt;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::record::ContainerKind;
use crate::error::{Context, Error};
use crate::sys;

/// Assumes the identity of `process`, and enters its working directory. The calling process is privileged
/// in its user namespace, and has `kind` of program to execute.
///
/// # Errors
///
/// The step that failed; the process must not go on.
pub(super) fn assume(process: &Process, kind: ContainerKind) -> Result<(), Error> {
    let wanted = Wanted::of(process)?;
    let cwd = process.cwd();
    // A user may not be able to enter it, and the other way round: a file server may know the user only.
    let is_there = enter(cwd)?;
    wanted.limit().context("limit the capabilities")?;
    if kind == ContainerKind::Linux {
        give_streams(process.user().uid()).context("give the streams to the user")?;
    }
    rustix::thread::set_keep_capabilities(true).context("keep the capabilities")?;
    become_user(process)?;
    if !is_there {
        change_directory(cwd).map_err(|error| refused(cwd, &error))?;
    }
    is_inside(cwd)?;
    rustix::thread::set_keep_capabilities(false).context("keep no capabilities")?;
    wanted.set().context("set the capabilities")
}

fn become_user(process: &Process) -> Result<(), Error> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    match sys::process::set_groups(groups) {
        // A user namespace may forbid it, and then nobody has any.
        Err(error) if groups.is_empty() && error.kind() == io::ErrorKind::PermissionDenied => {}
        other => other.with_context(|| format!("set the groups {groups:?}"))?,
    }
    let (uid, gid) = (user.uid(), user.gid());
    let group = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(group, group, group)
        .with_context(|| format!("set the group {gid}"))?;
    let user = Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(user, user, user)
        .with_context(|| format!("set the user {uid}"))
}

/// Enters the working directory; `false` if this user must not.
fn enter(cwd: &Path) -> Result<bool, Error> {
    match change_directory(cwd) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(refused(cwd, &error)),
    }
}

fn change_directory(cwd: &Path) -> io::Result<()> {
    Ok(rustix::process::chdir(cwd)?)
}

fn refused(cwd: &Path, error: &io::Error) -> Error {
    Error::invalid(format!("process.cwd: {}: {error}", cwd.display()))
}

/// A working directory that was entered through a descriptor of the node's may lie outside of the root
/// (runc's advisory GHSA-xr7r-f8xq-vfvv). The kernel then says that it cannot be reached.
fn is_inside(cwd: &Path) -> Result<(), Error> {
    let outside = || {
        Error::invalid(format!(
            "process.cwd: {} is outside of the root",
            cwd.display()
        ))
    };
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.to_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(outside()),
        Err(error) => Err(error).context("look at the working directory"),
    }
}

/// Has the user own its streams, so that it can open them again, for example as `/dev/stderr`. Those
/// that cannot be given are left, as runc leaves them; a file of the node's is never given away.
fn give_streams(user: u32) -> io::Result<()> {
    let null = rustix::fs::makedev(1, 3);
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        give(stream, user, null)?;
    }
    Ok(())
}

fn give(stream: impl AsFd, user: u32, null: u64) -> io::Result<()> {
    let found = rustix::fs::fstat(&stream)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    let can_be_given = kind.is_fifo() || kind.is_socket() || kind.is_char_device();
    if !can_be_given || found.st_uid == user || found.st_rdev == null {
        return Ok(());
    }
    match rustix::fs::fchown(&stream, Some(Uid::from_raw(user)), None) {
        Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The capabilities that a process is to have.
#[derive(Debug)]
struct Wanted {
    bounding: CapabilitySet,
    sets: CapabilitySets,
    ambient: CapabilitySet,
    /// Those that the kernel has.
    known: CapabilitySet,
}

impl Wanted {
    /// A capability that the kernel does not have is left out, as runc does, which warns of it.
    fn of(process: &Process) -> Result<Self, Error> {
        let now = rustix::thread::capabilities(None).context("learn the capabilities")?;
        let highest = u64::BITS - now.permitted.bits().leading_zeros();
        let known = u64::MAX
            .checked_shr(u64::BITS - highest)
            .unwrap_or_default();
        let asked = process.capabilities().as_ref();
        let set = |set: fn(&LinuxCapabilities) -> &Option<Capabilities>| {
            let asked = asked.and_then(|asked| set(asked).as_ref());
            let bits = asked
                .into_iter()
                .flatten()
                .fold(0, |bits, capability| bits | capability.to_cap().bitmask());
            if bits & !known != 0 {
                tracing::warn!("a capability of the process is unknown to the kernel");
            }
            CapabilitySet::from_bits_retain(bits & known)
        };
        Ok(Self {
            bounding: set(LinuxCapabilities::bounding),
            sets: CapabilitySets {
                effective: set(LinuxCapabilities::effective),
                permitted: set(LinuxCapabilities::permitted),
                inheritable: set(LinuxCapabilities::inheritable),
            },
            ambient: set(LinuxCapabilities::ambient),
            known: CapabilitySet::from_bits_retain(known),
        })
    }

    /// Drops what no program may gain; that is a privilege itself.
    fn limit(&self) -> io::Result<()> {
        for one in single(self.known - self.bounding) {
            rustix::thread::remove_capability_from_bounding_set(one)?;
        }
        Ok(())
    }

    fn set(&self) -> io::Result<()> {
        rustix::thread::set_capabilities(None, self.sets)?;
        rustix::thread::clear_ambient_capability_set()?;
        // The kernel takes no other.
        let possible = self.sets.permitted & self.sets.inheritable;
        if !(self.ambient - possible).is_empty() {
            tracing::warn!("an ambient capability is not permitted and inheritable");
        }
        for one in single(self.ambient & possible) {
            rustix::thread::configure_capability_in_ambient_set(one, true)?;
        }
        Ok(())
    }
}

/// The members of a set, each by itself.
fn single(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    let bits = set.bits();
    (0..u64::BITS)
        .map(|number| 1 << number)
        .filter(move |bit| bits & bit != 0)
        .map(CapabilitySet::from_bits_retain)
}
