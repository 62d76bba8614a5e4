//! Landlock: rights that a process gives up for good, as the kernel checks them at each access
//! (`Documentation/userspace-api/landlock.rst`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_ulong};

/// The same numbers on every architecture, and not in every version of `libc`.
const CREATE_RULESET: c_long = 444;
const ADD_RULE: c_long = 445;
const RESTRICT_SELF: c_long = 446;

const CREATE_RULESET_VERSION: c_ulong = 1;
const RULE_PATH_BENEATH: c_ulong = 1;

/// Rights on files and directories (`LANDLOCK_ACCESS_FS_…` of `linux/landlock.h`).
pub(crate) mod files {
    pub(crate) const EXECUTE: u64 = 1;
    pub(crate) const WRITE_FILE: u64 = 1 << 1;
    pub(crate) const READ_FILE: u64 = 1 << 2;
    pub(crate) const READ_DIR: u64 = 1 << 3;
    pub(crate) const REMOVE_DIR: u64 = 1 << 4;
    pub(crate) const REMOVE_FILE: u64 = 1 << 5;
    pub(crate) const MAKE_DIR: u64 = 1 << 7;
    pub(crate) const MAKE_REG: u64 = 1 << 8;
    pub(crate) const TRUNCATE: u64 = 1 << 14;
    /// Every right that this file knows, up to version 5 of the interface.
    pub(crate) const ALL: u64 = (1 << 16) - 1;
}

/// Binding and connecting TCP sockets, since version 4.
pub(crate) const TCP: u64 = 0b11;
/// Signals to processes outside, and abstract UNIX sockets of processes outside, since version 6.
pub(crate) const SCOPES: u64 = 0b11;

/// What is given up, and the exceptions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ruleset<'a> {
    /// Rights on files that are given up: see [`files`].
    pub(crate) files: u64,
    /// Rights on the network that are given up: [`TCP`].
    pub(crate) network: u64,
    /// What is confined to processes with the same restriction: [`SCOPES`].
    pub(crate) scoped: u64,
    /// Below these files or directories some rights are kept.
    pub(crate) kept: &'a [(BorrowedFd<'a>, u64)],
}

impl Ruleset<'_> {
    /// Gives up everything that can be given up.
    pub(crate) const NOTHING: Self = Self {
        files: files::ALL,
        network: TCP,
        scoped: SCOPES,
        kept: &[],
    };
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttributes {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: c_int,
}

/// The version of the kernel's interface; 0 if there is none, or if it is switched off.
pub(crate) fn version() -> u32 {
    // SAFETY: with this flag the kernel takes no structure and returns a number.
    let version = unsafe {
        libc::syscall(
            CREATE_RULESET,
            std::ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or_default()
}

/// The rights on files that a version of the interface knows.
fn known_files(version: u32) -> u64 {
    match version {
        0 => 0,
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => files::ALL,
    }
}

/// Restricts this thread and what it starts from here on; a process calls it while it has one
/// thread. The caller has set `no_new_privs`. Open descriptors stay as they are.
///
/// What the kernel's version does not know is not restricted: this is a second wall. Returns
/// whether there is Landlock at all.
///
/// # Errors
///
/// The kernel has Landlock and refuses.
pub(crate) fn restrict(ruleset: &Ruleset<'_>) -> io::Result<bool> {
    let version = version();
    if version == 0 {
        return Ok(false);
    }
    let known = known_files(version);
    let attributes = RulesetAttributes {
        files: ruleset.files & known,
        network: if version >= 4 { ruleset.network } else { 0 },
        scoped: if version >= 6 { ruleset.scoped } else { 0 },
    };
    // A kernel takes a longer structure than its own only if the rest is zero, as it is here.
    // SAFETY: the structure is complete, and its size is given.
    let made = unsafe {
        libc::syscall(
            CREATE_RULESET,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0_u32,
        )
    };
    let made = c_int::try_from(checked(made)?).map_err(io::Error::other)?;
    // SAFETY: the call above returned a new descriptor that nothing else owns.
    let made = unsafe { OwnedFd::from_raw_fd(made) };
    for (parent, allowed) in ruleset.kept {
        let beneath = PathBeneath {
            allowed: allowed & attributes.files,
            parent: parent.as_raw_fd(),
        };
        // SAFETY: the structure is complete, and both descriptors are open.
        checked(unsafe {
            libc::syscall(
                ADD_RULE,
                made.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const beneath,
                0_u32,
            )
        })?;
    }
    // SAFETY: it takes a descriptor and flags.
    checked(unsafe { libc::syscall(RESTRICT_SELF, made.as_raw_fd(), 0_u32) })?;
    Ok(true)
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_given_up_cannot_be_had_and_what_is_kept_can() {
        if version() == 0 {
            // The kernel was built or started without it, and says so.
            assert!(!restrict(&Ruleset::NOTHING).unwrap());
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let [inside, outside] = ["in", "out"].map(|name| directory.path().join(name));
        for place in [&inside, &outside] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("file"), "text").unwrap();
        }
        // A restriction is a thread's.
        let restricted = move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let kept = File::open(&inside).unwrap();
            let kept = [(kept.as_fd(), files::READ_FILE)];
            let ruleset = Ruleset {
                kept: &kept,
                ..Ruleset::NOTHING
            };
            assert!(restrict(&ruleset).unwrap());
            assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"text");
            for error in [
                std::fs::write(inside.join("file"), "other").unwrap_err(),
                std::fs::write(inside.join("new"), "other").unwrap_err(),
                std::fs::read(outside.join("file")).unwrap_err(),
                std::fs::read_dir(&outside).unwrap_err(),
            ] {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            }
        };
        std::thread::spawn(restricted).join().unwrap();
    }
}
