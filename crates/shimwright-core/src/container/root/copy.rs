//! Copies a directory of an image into a new file system (`tmpcopyup`).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::sys::mount::{clone_mount, set_mount_attributes};

/// How deep directories may be: each holds two descriptors.
const MAX_DEPTH: usize = 256;

/// One directory that is being copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    entries: Vec<CString>,
}

/// Copies what is below one directory into another, with owners, modes and extended attributes. Follows
/// no link, and opens nothing but directories and ordinary files.
pub(super) fn tree(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    // Opened through this copy of the mount, a device that somebody has put there has no driver.
    let source = clone_mount(from, "", true)?;
    set_mount_attributes(&source, MountAttrFlags::MOUNT_ATTR_NODEV, true)?;
    let mut levels = vec![level(&source, c".", to, c".")?];
    while let Some(top) = levels.last_mut() {
        let Some(name) = top.entries.pop() else {
            levels.pop();
            continue;
        };
        let is_deepest = levels.len() >= MAX_DEPTH;
        let Some(top) = levels.last() else { break };
        if let Some(below) = entry(top, &name)? {
            if is_deepest {
                return Err(Errno::NAMETOOLONG.into());
            }
            levels.push(below);
        }
    }
    Ok(())
}

fn level(
    from: impl AsFd,
    name: &std::ffi::CStr,
    to: impl AsFd,
    to_name: &std::ffi::CStr,
) -> io::Result<Level> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let to = rustix::fs::openat(to, to_name, flags, Mode::empty())?;
    let mut entries = Vec::new();
    for found in Dir::read_from(&from)? {
        let name = found?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            entries.push(name);
        }
    }
    Ok(Level { from, to, entries })
}

/// Copies one entry; a directory is returned, to be gone into.
fn entry(level: &Level, name: &CString) -> io::Result<Option<Level>> {
    let name = name.as_c_str();
    let stat = match rustix::fs::statat(&level.from, name, AtFlags::SYMLINK_NOFOLLOW) {
        // Somebody else may use the image.
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(&level.to, name, Mode::from_raw_mode(0o700))?;
            let below = self::level(&level.from, name, &level.to, name)?;
            // Of what has been opened, which need not be what was looked at.
            attributes(&below.from, &below.to)?;
            Ok(Some(below))
        }
        FileType::RegularFile => file(level, name).map(|()| None),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&level.from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), &level.to, name)?;
            owner(level, name, &stat).map(|()| None)
        }
        kind => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(&level.to, name, kind, mode, stat.st_rdev)?;
            owner(level, name, &stat).map(|()| None)
        }
    }
}

fn owner(level: &Level, name: &std::ffi::CStr, stat: &Stat) -> io::Result<()> {
    let (user, group) = ids(stat);
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(&level.to, name, user, group, flags)?)
}

fn ids(stat: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    let user = rustix::fs::Uid::from_raw(stat.st_uid);
    let group = rustix::fs::Gid::from_raw(stat.st_gid);
    (Some(user), Some(group))
}

fn file(level: &Level, name: &std::ffi::CStr) -> io::Result<()> {
    // It may be a FIFO by now, which would make this wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = rustix::fs::openat(&level.from, name, flags, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode).is_file() {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&level.to, name, flags, Mode::from_raw_mode(0o600))?;
    let (mut from, mut to) = (File::from(from), File::from(to));
    io::copy(&mut from, &mut to)?;
    attributes(&from, &to)
}

/// Gives a file the owner, the mode and the extended attributes of another.
fn attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(&from)?;
    let (user, group) = ids(&stat);
    rustix::fs::fchown(&to, user, group)?;
    // After the owner, whose change takes away `setuid`.
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    extended(&from, &to)
}

/// What the new file system does not keep is left out.
fn extended(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    /// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of the kernel.
    const MAX: usize = 65536;
    let mut none: [u8; 0] = [];
    match rustix::fs::flistxattr(&from, &mut none) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let mut names = vec![0; MAX];
    let length = rustix::fs::flistxattr(&from, &mut names[..])?;
    let mut value = vec![0; MAX];
    for name in names[..length].split(|&byte| byte == 0) {
        if name.is_empty() {
            continue;
        }
        let length = match rustix::fs::fgetxattr(&from, name, &mut value[..]) {
            Err(Errno::NODATA) => continue,
            other => other?,
        };
        match rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
