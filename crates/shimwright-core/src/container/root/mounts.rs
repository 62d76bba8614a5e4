//! The mounts of a spec, made with detached mounts: a mount is complete before it has a place.
//!
//! What differs from runc is not seen in a container: runc mounts by paths of `/proc`, and opens what it
//! has mounted a second time.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::{MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT};
use oci_spec::runtime::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::options::{ATIME, Flags, LOCKED, Options, change, of_statfs};
use super::{Root, cgroup, copy, filesystem, path};
use crate::error::{Context, Error};
use crate::sys::mount::{Change, attach, clone_mount};

/// Files of `/proc` over which something may be mounted, as runc has them.
const MASKED_PROC: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// `PROC_SUPER_MAGIC` of `linux/magic.h`.
const PROC: i128 = 0x9fa0;

/// A mount of a spec.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the spec has it, for messages.
    pub(super) shown: PathBuf,
    /// Cleaned, without the first `/`.
    pub(super) destination: PathBuf,
    pub(super) source: PathBuf,
    pub(super) kind: Kind,
    pub(super) options: Options,
    /// The source of a bind mount, opened with the privileges of the node.
    pub(super) prepared: Option<OwnedFd>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    Cgroup,
    /// A file system of this type.
    New(String),
}

impl Entry {
    pub(super) fn new(mount: &Mount, is_guest: bool) -> io::Result<Self> {
        let options = mount.options().iter().flatten().map(String::as_str);
        let mut options = Options::parse(options);
        let mut source = mount.source().clone().unwrap_or_default();
        let kind = match mount.typ().as_deref().unwrap_or_default() {
            _ if options.has(MS_BIND) => Kind::Bind,
            // runc has the kernel look for a file system of that name.
            "bind" => Kind::Bind,
            "cgroup" => Kind::Cgroup,
            other => Kind::New(other.to_owned()),
        };
        if kind == Kind::Bind {
            options.flags |= MS_BIND;
            source = std::path::absolute(source)?;
            if is_guest && options.propagation.is_empty() {
                options.propagation.push(libc::MS_PRIVATE | MS_REC);
            }
        }
        Ok(Self {
            shown: mount.destination().clone(),
            destination: path::clean(mount.destination()),
            source,
            kind,
            options,
            prepared: None,
        })
    }

    fn is(&self, kind: &str) -> bool {
        matches!(&self.kind, Kind::New(name) if name == kind)
    }

    pub(super) fn is_dev(&self) -> bool {
        self.destination == Path::new("dev")
    }

    pub(super) fn is_recursive(&self) -> bool {
        self.options.has(MS_REC)
    }
}

/// Makes a mount.
pub(super) fn mount(root: &Root, entry: &Entry) -> Result<(), Error> {
    let mounted = match &entry.kind {
        Kind::Bind => bind(root, entry),
        Kind::Cgroup => cgroup::mount(root, entry),
        Kind::New(_) => new(root, entry),
    };
    mounted.with_context(|| {
        let (source, place) = (entry.source.display(), entry.shown.display());
        format!("mount {source} on {place}")
    })
}

/// Where something is mounted.
pub(super) struct Place {
    pub(super) file: OwnedFd,
    /// Whether it was there before.
    existed: bool,
}

/// Finds the place of a mount, and makes it if it is missing: a directory, or a file for a file.
pub(super) fn place(
    root: BorrowedFd<'_>,
    entry: &Entry,
    tree: Option<&OwnedFd>,
) -> io::Result<Place> {
    let found = path::find(root, &entry.destination)?;
    if found.real.as_os_str().is_empty() {
        return Err(io::Error::other(
            "it would be over the root of the container",
        ));
    }
    check_proc(&found.real, entry, tree)?;
    let existed = found.file.is_some();
    let file = match (found.file, tree) {
        (Some(file), _) => file,
        (None, Some(tree)) if !file_type(tree)?.is_dir() => path::make_file(root, &found.real)?,
        (None, _) => path::make_missing(root, &found.real)?,
    };
    Ok(Place { file, existed })
}

fn file_type(file: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

/// Keeps `/proc` what it is: programs and this process trust what they read there
/// (GHSA-fh74-hm69-rqjw of runc).
fn check_proc(real: &Path, entry: &Entry, tree: Option<&OwnedFd>) -> io::Result<()> {
    let Ok(below) = real.strip_prefix("proc") else {
        return Ok(());
    };
    let reason = if below.as_os_str().is_empty() {
        let is_proc = match tree {
            Some(tree) => i128::from(rustix::fs::fstatfs(tree)?.f_type) == PROC,
            None => entry.is("proc"),
        };
        if is_proc {
            return Ok(());
        }
        "it is not of type proc"
    } else {
        if MASKED_PROC.iter().any(|file| below == Path::new(file)) {
            return Ok(());
        }
        "it would be inside /proc"
    };
    Err(io::Error::other(reason))
}

/// Makes a bind mount.
pub(super) fn bind(root: &Root, entry: &Entry) -> io::Result<()> {
    let opened;
    let tree = match root.open_source(entry)? {
        Some(tree) => {
            opened = tree;
            &opened
        }
        None => entry.prepared.as_ref().ok_or(io::ErrorKind::NotFound)?,
    };
    let place = place(root.file()?, entry, Some(tree))?;
    if entry.options.has(MS_REMOUNT) {
        set_flags(&place.file, &entry.options)?;
        return finish(entry, &place.file);
    }
    set_flags(tree, &entry.options)?;
    finish(entry, tree)?;
    attach(tree, &place.file)
}

/// The last changes of a mount: the attributes of all mounts below, and the propagation.
fn finish(entry: &Entry, mount: &OwnedFd) -> io::Result<()> {
    if let Some((set, clear)) = entry.options.recursive {
        set_recursive(mount, set, clear)?;
    }
    propagate(mount, &entry.options.propagation)
}

fn set_recursive(mount: &OwnedFd, set: u64, clear: u64) -> io::Result<()> {
    let change = Change {
        set,
        clear,
        ..Change::default()
    };
    change.of(mount, true)
}

/// Changes the propagation of a mount, in the order of the options.
pub(super) fn propagate(mount: &OwnedFd, changes: &[Flags]) -> io::Result<()> {
    changes.iter().try_for_each(|&flags| {
        let change = Change::propagation(flags & !MS_REC);
        change.of(mount, flags & MS_REC != 0)
    })
}

/// Has a bind mount have the flags of its options (`mountToRootfs` of runc).
///
/// Flags that another user namespace has locked stay, unless an option contradicts them.
pub(super) fn set_flags(mount: &OwnedFd, options: &Options) -> io::Result<()> {
    let Some((set, clear)) = options.change_of_bind() else {
        return Ok(());
    };
    let of = |(set, clear)| Change {
        set,
        clear,
        ..Change::default()
    };
    let refused = match of((set, clear)).of(mount, false) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => error,
        other => return other,
    };
    let found = of_statfs(rustix::fs::fstatvfs(mount)?.f_flag.bits());
    if found & options.cleared & LOCKED != 0 {
        return Err(refused);
    }
    let times = options.flags & ATIME;
    if times != 0 && times != found & ATIME {
        return Err(refused);
    }
    of(change(options.flags | found & LOCKED)).of(mount, false)
}

/// Mounts a new file system.
fn new(root: &Root, entry: &Entry) -> io::Result<()> {
    let place = match &entry.kind {
        Kind::New(kind) if kind == "proc" || kind == "sysfs" => ordinary(root.file()?, entry)?,
        _ => place(root.file()?, entry, None)?,
    };
    new_at(root, entry, &place)
}

/// Mounts a new file system on a place.
pub(super) fn new_at(root: &Root, entry: &Entry, place: &Place) -> io::Result<()> {
    let mut options = entry.options.clone();
    // Files may still be made there.
    let is_later = entry.is("tmpfs") || entry.is_dev();
    let read_only = libc::MOUNT_ATTR_RDONLY;
    let mut is_read_only = options.has(MS_RDONLY);
    if is_later {
        options.flags &= !MS_RDONLY;
        if let Some((set, _)) = &mut options.recursive {
            is_read_only |= *set & read_only != 0;
            *set &= !read_only;
        }
    }
    if entry.is("tmpfs") && place.existed {
        // An option of the spec comes later, and holds.
        let mode = rustix::fs::fstat(&place.file)?.st_mode & 0o7777;
        options.data.insert(0, format!("mode={mode:04o}"));
    }
    if options.has(MS_REMOUNT) {
        filesystem::reconfigure(&place.file, &options)?;
        return finish(entry, &place.file);
    }
    let mount = filesystem::new(root, entry, &options)?;
    if options.copy_up && entry.is("tmpfs") {
        copy::tree(&place.file, &mount)?;
    }
    if let Some((set, clear)) = options.recursive {
        set_recursive(&mount, set, clear)?;
    }
    propagate(&mount, &options.propagation)?;
    attach(&mount, &place.file)?;
    if is_later && is_read_only {
        root.make_read_only_later(mount);
    }
    Ok(())
}

/// The place of `proc` and `sysfs`, which is no link: programs rely on what is there.
fn ordinary(root: BorrowedFd<'_>, entry: &Entry) -> io::Result<Place> {
    check_proc(&entry.destination, entry, None)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(root, &entry.destination, flags, Mode::empty(), resolve);
    let file = match opened {
        Ok(file) if file_type(&file)?.is_dir() => file,
        Err(Errno::NOENT) => path::make_directory(root, &path::resolve(root, &entry.destination)?)?,
        Ok(_) => return Err(io::Error::other("its place is not an ordinary directory")),
        Err(error) => return Err(error.into()),
    };
    Ok(Place {
        file,
        existed: true,
    })
}

/// A detached copy of what is at a path of the node.
pub(super) fn open_tree(source: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_mount(CWD, source, recursive)
}

/// The ids that a bind mount is to show, as a user namespace.
pub(super) fn map_ids(tree: &OwnedFd, ids: &File, recursive: bool) -> io::Result<()> {
    let change = Change {
        ids_of: Some(ids.as_fd()),
        ..Change::default()
    };
    change.of(tree, recursive)
}
