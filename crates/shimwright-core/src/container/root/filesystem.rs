//! New file systems (`fsopen(2)`, `fsconfig(2)`, `fsmount(2)`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use libc::{MS_DIRSYNC, MS_LAZYTIME, MS_MANDLOCK, MS_RDONLY, MS_SYNCHRONOUS};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags};

use super::Root;
use super::mounts::{self, Entry, Kind};
use super::options::{Options, change};
use crate::sys::mount::Change;

/// Flags of a whole file system, the parameter that sets each and the one that takes it away.
const OF_FILE_SYSTEM: [(u64, &str, &str); 5] = [
    (MS_RDONLY, "ro", "rw"),
    (MS_SYNCHRONOUS, "sync", "async"),
    (MS_DIRSYNC, "dirsync", ""),
    (MS_MANDLOCK, "mand", "nomand"),
    (MS_LAZYTIME, "lazytime", "nolazytime"),
];

/// A file system, detached.
pub(super) fn new(root: &Root, entry: &Entry, options: &Options) -> io::Result<OwnedFd> {
    let Kind::New(kind) = &entry.kind else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let wanted = New {
        kind,
        source: &entry.source,
        options,
        // What the kernel fills by itself has no label.
        label: root
            .label()
            .filter(|_| !matches!(kind.as_str(), "proc" | "sysfs" | "mqueue")),
    };
    match wanted.mount() {
        // Only who owns the network namespace may mount it anew.
        Err(error) if kind == "sysfs" && root.is_in_user_namespace() && is_denied(&error) => {
            let tree = mounts::open_tree(Path::new("/sys"), true)?;
            mounts::set_flags(&tree, options)?;
            Ok(tree)
        }
        // A user namespace need not have a group of terminals.
        Err(error) if kind == "devpts" && root.is_in_user_namespace() => {
            let mut options = options.clone();
            options.data.retain(|option| !option.starts_with("gid="));
            if options.data == wanted.options.data {
                return Err(error);
            }
            let wanted = New {
                options: &options,
                ..wanted
            };
            wanted.mount()
        }
        other => other,
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// A file system to mount.
pub(super) struct New<'a> {
    pub(super) kind: &'a str,
    pub(super) source: &'a Path,
    pub(super) options: &'a Options,
    pub(super) label: Option<&'a str>,
}

impl New<'_> {
    /// Mounts it, detached.
    pub(super) fn mount(&self) -> io::Result<OwnedFd> {
        let context = rustix::mount::fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        self.configure(&context)
            .and_then(|()| Ok(rustix::mount::fsconfig_create(&context)?))
            .map_err(|error| explained(error, &context))?;
        let attributes = u32::try_from(self.options.attributes()).map_err(io::Error::other)?;
        let attributes = MountAttrFlags::from_bits_retain(attributes);
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Ok(rustix::mount::fsmount(&context, flags, attributes)?)
    }

    fn configure(&self, context: &OwnedFd) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(context, "source", self.source)?;
        for (flag, set, _) in OF_FILE_SYSTEM {
            if self.options.has(flag) {
                rustix::mount::fsconfig_set_flag(context, set)?;
            }
        }
        if let Some(label) = self.label {
            rustix::mount::fsconfig_set_string(context, "context", label)?;
        }
        set_data(context, self.kind, &self.options.data)
    }
}

/// Changes the file system that is mounted on a place, and that mount (`remount`).
pub(super) fn reconfigure(place: &OwnedFd, options: &Options) -> io::Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(place, "", flags)?;
    let configure = || -> io::Result<()> {
        for (flag, set, clear) in OF_FILE_SYSTEM {
            let parameter = if options.has(flag) { set } else { clear };
            if !parameter.is_empty() {
                rustix::mount::fsconfig_set_flag(&context, parameter)?;
            }
        }
        set_data(&context, "", &options.data)?;
        Ok(rustix::mount::fsconfig_reconfigure(&context)?)
    };
    configure().map_err(|error| explained(error, &context))?;
    let (set, clear) = change(options.flags);
    let change = Change {
        set,
        clear,
        ..Change::default()
    };
    change.of(place, false)
}

/// Hands options to a file system, as `mount(2)` would: separated by commas.
fn set_data(context: &OwnedFd, kind: &str, data: &[String]) -> io::Result<()> {
    for option in data.iter().flat_map(|option| parameters(kind, option)) {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context, key, value)?,
            // POSIX ACLs are always there.
            None if kind == "tmpfs" && matches!(option, "acl" | "noacl") => {}
            None => rustix::mount::fsconfig_set_flag(context, option)?,
        }
    }
    Ok(())
}

/// The parameters in one option.
fn parameters<'a>(kind: &str, option: &'a str) -> impl Iterator<Item = &'a str> {
    // The only one of `tmpfs` whose value has commas.
    let is_whole = kind == "tmpfs" && option.starts_with("mpol=");
    let end = if is_whole { '\0' } else { ',' };
    option.split(end).filter(|part| !part.is_empty())
}

/// Adds what the file system says about its error.
fn explained(error: io::Error, context: impl AsFd) -> io::Error {
    let mut said = [0; 512];
    let said = match rustix::io::read(context, &mut said) {
        Ok(length) => String::from_utf8_lossy(&said[..length]).into_owned(),
        Err(_) => return error,
    };
    let said = said.trim_start_matches("e ").trim();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // Others look at these.
        None | Some(Errno::PERM | Errno::BUSY) => error,
        Some(_) => io::Error::new(error.kind(), format!("{said}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_separated_by_commas() {
        let all = |kind, option| parameters(kind, option).collect::<Vec<_>>();
        assert_eq!(all("tmpfs", "size=1k,,mode=755"), ["size=1k", "mode=755"]);
        assert_eq!(all("tmpfs", "mpol=bind:0,2"), ["mpol=bind:0,2"]);
        assert_eq!(all("cgroup", "cpu,cpuacct"), ["cpu", "cpuacct"]);
    }

    #[test]
    fn a_file_system_says_what_is_wrong() {
        let options = Options::parse(["size=many"]);
        let new = New {
            kind: "tmpfs",
            source: Path::new("tmpfs"),
            options: &options,
            label: None,
        };
        // Whoever may not mount does not get that far.
        if rustix::process::geteuid().is_root() {
            let error = new.mount().unwrap_err();
            assert!(error.to_string().contains("size"), "{error}");
        }
    }
}
