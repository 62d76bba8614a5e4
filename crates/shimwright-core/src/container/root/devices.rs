//! Device nodes, and the links of `/dev`.
//!
//! libcontainer 0.7 refuses a device outside of `/dev` and one that is there twice, and makes nodes and
//! links by paths that are seen from the node.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::{Root, mounts, path};
use crate::error::{Context, Error};
use crate::sys::mount::attach;

/// The nodes that every container has, all of them `c`, with mode 0666 (`AllowedDevices` of runc).
const DEFAULT: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/random", 1, 8),
    ("dev/full", 1, 7),
    ("dev/tty", 5, 0),
    ("dev/zero", 1, 5),
    ("dev/urandom", 1, 9),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// A node to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Cleaned, without the first `/`.
    path: PathBuf,
    kind: FileType,
    number: rustix::fs::Dev,
    mode: u32,
    user: u32,
    group: u32,
}

/// The nodes of a spec: the default ones that it does not have itself, then its own.
pub(super) fn of_spec(devices: &[LinuxDevice]) -> Result<Vec<Device>, Error> {
    let has = |path: &str| {
        let mut all = devices.iter();
        all.any(|device| device.path() == &Path::new("/").join(path))
    };
    let default = DEFAULT.iter().filter(|(path, ..)| !has(path));
    let default = default.map(|&(path, major, minor)| Device {
        path: path.into(),
        kind: FileType::CharacterDevice,
        number: rustix::fs::makedev(major, minor),
        mode: 0o666,
        user: 0,
        group: 0,
    });
    let mut all: Vec<_> = default.collect();
    for device in devices {
        let found = Device::new(device)?;
        // It is a link, made later.
        if found.path != Path::new("dev/ptmx") && !found.path.as_os_str().is_empty() {
            all.push(found);
        }
    }
    Ok(all)
}

impl Device {
    fn new(device: &LinuxDevice) -> Result<Self, Error> {
        let invalid = || {
            let path = device.path().display();
            Error::invalid(format!(
                "config.json: linux.devices: {path} is no such node"
            ))
        };
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return Err(invalid()),
        };
        let number = |number: i64| u32::try_from(number).map_err(|_| invalid());
        let number = match kind {
            FileType::Fifo => 0,
            _ => rustix::fs::makedev(number(device.major())?, number(device.minor())?),
        };
        Ok(Self {
            path: path::clean(device.path()),
            kind,
            number,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            user: device.uid().unwrap_or(0),
            group: device.gid().unwrap_or(0),
        })
    }
}

/// Makes all nodes and links. No mode is changed by a umask.
pub(super) fn make(root: &Root, devices: &[Device]) -> Result<(), Error> {
    let file = root.file().context("find the root")?;
    let directory = path::find(file, Path::new("dev"))
        .and_then(|found| match found.file {
            Some(directory) => Ok(directory),
            None => path::make_directory(file, &found.real),
        })
        .context("find /dev")?;
    for device in devices {
        make_one(root, &directory, device)
            .with_context(|| format!("make the device /{}", device.path.display()))?;
    }
    links(directory.as_fd()).context("make the links of /dev")
}

fn make_one(root: &Root, dev: &OwnedFd, device: &Device) -> io::Result<()> {
    let (parent, name) = path::split(&device.path)?;
    if parent == Path::new("dev") {
        match make_in(root, dev.as_fd(), name, device) {
            // It may be a link, which runc follows to what is missing.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
    let file = root.file()?;
    let real = path::resolve(file, &device.path)?;
    let (parent, name) = path::split(&real)?;
    let directory = path::make_directory(file, parent)?;
    match make_in(root, directory.as_fd(), name, device) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn make_in(
    root: &Root,
    directory: BorrowedFd<'_>,
    name: &OsStr,
    device: &Device,
) -> io::Result<()> {
    let is_node = device.kind != FileType::Fifo;
    if root.is_in_user_namespace() && is_node {
        return bind(directory, name, device);
    }
    let mode = Mode::from_raw_mode(device.mode);
    match rustix::fs::mknodat(directory, name, device.kind, mode, device.number) {
        Err(Errno::PERM) if is_node => return bind(directory, name, device),
        other => other?,
    }
    if (device.user, device.group) == (0, 0) {
        return Ok(());
    }
    own(directory, name, device)
}

/// Gives a node that has just been made its owner, if it is still there.
fn own(directory: BorrowedFd<'_>, name: &OsStr, device: &Device) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != device.kind || (kind != FileType::Fifo && stat.st_rdev != device.number) {
        return Err(io::Error::other("it has been replaced"));
    }
    let (user, group) = (Uid::from_raw(device.user), Gid::from_raw(device.group));
    let flags = AtFlags::EMPTY_PATH;
    rustix::fs::chownat(&node, "", Some(user), Some(group), flags)?;
    Ok(())
}

/// Mounts the node's own over an empty file: nobody may make a node in a user namespace.
fn bind(directory: BorrowedFd<'_>, name: &OsStr, device: &Device) -> io::Result<()> {
    let source = mounts::open_tree(&Path::new("/").join(&device.path), false)?;
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
    let made = match rustix::fs::mknodat(directory, name, FileType::RegularFile, Mode::empty(), 0) {
        Ok(()) | Err(Errno::EXIST) => {
            rustix::fs::openat(directory, name, flags - OFlags::CREATE, Mode::empty())?
        }
        Err(error) => return Err(error.into()),
    };
    attach(&source, &made)
}

fn links(directory: BorrowedFd<'_>) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::symlinkat("pts/ptmx", directory, "ptmx")?;
    let core = rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok();
    let core = core.then_some(("/proc/kcore", "core"));
    for (target, name) in LINKS.into_iter().chain(core) {
        match rustix::fs::symlinkat(target, directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(json: &str) -> Result<Vec<Device>, Error> {
        of_spec(&serde_json::from_str::<Vec<LinuxDevice>>(json).unwrap())
    }

    #[test]
    fn a_device_of_the_spec_takes_the_place_of_the_default_one() {
        let all = devices(
            r#"[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":384,"uid":7},
            {"path":"/dev/ptmx","type":"c","major":5,"minor":2},
            {"path":"/a/../y","type":"p"}]"#,
        )
        .unwrap();
        assert_eq!(all.len(), DEFAULT.len() + 1);
        let null = all.iter().find(|all| all.path == Path::new("dev/null"));
        assert_eq!(null.map(|null| (null.mode, null.user)), Some((0o600, 7)));
        let last = all.last().unwrap();
        assert_eq!(last.path, Path::new("y"));
        assert_eq!((last.kind, last.mode), (FileType::Fifo, 0o666));
    }

    #[test]
    fn a_node_has_a_kind_and_a_number() {
        for json in [
            r#"[{"path":"/a","type":"a"}]"#,
            r#"[{"path":"/a","type":"c","major":-1,"minor":0}]"#,
        ] {
            assert!(devices(json).is_err(), "{json}");
        }
    }
}
