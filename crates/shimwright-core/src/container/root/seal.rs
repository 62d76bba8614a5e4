//! What the spec makes read-only or inaccessible, from inside of the root.
//!
//! Paths follow links here, inside of the root. Each is opened once: what it leads to cannot change
//! meanwhile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{enter, path};
use crate::error::{Context, Error};
use crate::sys::mount::{Change, attach, clone_mount};

const NULL: &str = "/dev/null";

/// Has streams that are the node's `/dev/null` be the container's.
pub(super) fn reopen_null() -> io::Result<()> {
    let open = |flags| rustix::fs::open(NULL, flags | OFlags::CLOEXEC, Mode::empty());
    // Opening anything else could do something.
    verify_null(&open(OFlags::PATH)?)?;
    let is_null = |stream: io::Result<Stat>| stream.map(|stat| is_null(&stat));
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [
        is_null(rustix::fs::fstat(&input).map_err(Into::into))?,
        is_null(rustix::fs::fstat(&output).map_err(Into::into))?,
        is_null(rustix::fs::fstat(&error).map_err(Into::into))?,
    ];
    if !streams.contains(&true) {
        return Ok(());
    }
    let null = open(OFlags::RDWR)?;
    verify_null(&null)?;
    if streams[0] {
        rustix::stdio::dup2_stdin(&null)?;
    }
    if streams[1] {
        rustix::stdio::dup2_stdout(&null)?;
    }
    if streams[2] {
        rustix::stdio::dup2_stderr(&null)?;
    }
    Ok(())
}

fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}

fn verify_null(file: &OwnedFd) -> io::Result<()> {
    if is_null(&rustix::fs::fstat(file)?) {
        return Ok(());
    }
    Err(io::Error::other(
        "/dev/null of the container is not that device",
    ))
}

/// Makes a mount read-only; what else holds for it stays.
pub(super) fn read_only(mount: impl AsFd) -> io::Result<()> {
    let change = Change {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Change::default()
    };
    change.of(mount, false)
}

/// Makes the root read-only.
pub(super) fn read_only_root() -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    read_only(rustix::fs::open("/", flags, Mode::empty())?)
}

/// Opens what a path leads to, if there is something.
fn target(path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Mounts each path over itself, read-only.
pub(super) fn read_only_paths(paths: &[String]) -> Result<(), Error> {
    let one = |path: &str| -> io::Result<()> {
        let Some(target) = target(path)? else {
            return Ok(());
        };
        let mount = clone_mount(&target, "", true)?;
        read_only(&mount)?;
        attach(&mount, &target)
    };
    paths
        .iter()
        .try_for_each(|path| one(path).with_context(|| format!("make {path} read-only")))
}

/// Covers directories with an empty one, and everything else with `/dev/null`.
pub(super) fn mask(paths: &[String]) -> Result<(), Error> {
    let mut covers = Covers::default();
    let mut masked: Vec<_> = Vec::new();
    for path in paths {
        let cleaned = path::clean(Path::new(path));
        if masked.contains(&cleaned) {
            continue;
        }
        covers
            .put_over(path)
            .with_context(|| format!("mask {path}"))?;
        masked.push(cleaned);
    }
    Ok(())
}

/// What paths are covered with: one mount each, of which there are copies.
#[derive(Default)]
struct Covers {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Covers {
    fn put_over(&mut self, path: &str) -> io::Result<()> {
        if self.null.is_none() {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let null = rustix::fs::open(NULL, flags, Mode::empty())?;
            verify_null(&null)?;
            self.null = Some(null);
        }
        let Some(target) = target(path)? else {
            return Ok(());
        };
        let stat = rustix::fs::fstat(&target)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        let cover = if is_directory {
            &self.empty
        } else {
            &self.null
        };
        match cover {
            Some(cover) => attach(clone_mount(cover, "", false)?, &target),
            None => {
                let empty = enter::empty()?;
                attach(&empty, &target)?;
                self.empty = Some(empty);
                Ok(())
            }
        }
    }
}
