//! The terminal of a Linux program, from the `devpts` of its own container, so that it has a name
//! there.
//!
//! The image decides what lies at `/dev` of a container without mounts, and a volume may be changed by
//! another container: what is opened is checked (runc's advisory GHSA-qw9x-cqr3-wc7r).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::MoveMountFlags;
use rustix::pty::OpenptFlags;

use crate::sys;

/// `linux/magic.h`.
const DEVPTS_SUPER_MAGIC: i128 = 0x1cd1;

/// The node of `ptmx` in every `devpts` (`fs/devpts/inode.c`).
const PTMX_INODE: u64 = 2;

/// The numbers of `ptmx`, and of the other ends (`admin-guide/devices.txt`).
const PTMX: (u32, u32) = (5, 2);
const PTY_SLAVES: u32 = 136;

/// Makes a terminal and has this process control it, with its streams. Returns the master. The root is
/// the container's; its first process has the terminal also as `/dev/console`.
pub(super) fn make(is_first: bool) -> io::Result<OwnedFd> {
    let master = open_master()?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let found = rustix::fs::fstat(&slave)?;
    if !is_devpts(&slave)? || rustix::fs::major(found.st_rdev) != PTY_SLAVES {
        return Err(io::Error::other(
            "the other end of /dev/pts/ptmx is no terminal",
        ));
    }
    if is_first {
        mount_console(&slave)?;
    }
    rustix::process::ioctl_tiocsctty(&slave)?;
    for stream in [
        rustix::stdio::dup2_stdin(&slave),
        rustix::stdio::dup2_stdout(&slave),
        rustix::stdio::dup2_stderr(&slave),
    ] {
        stream?;
    }
    Ok(master)
}

fn open_master() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let found = rustix::fs::openat2(
        CWD,
        "/dev/pts/ptmx",
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )?;
    let node = rustix::fs::fstat(&found)?;
    let numbers = (
        rustix::fs::major(node.st_rdev),
        rustix::fs::minor(node.st_rdev),
    );
    let is_ptmx = FileType::from_raw_mode(node.st_mode).is_char_device()
        && numbers == PTMX
        && node.st_ino == PTMX_INODE
        && is_devpts(&found)?;
    if !is_ptmx {
        return Err(io::Error::other(
            "/dev/pts/ptmx is not the device of that name",
        ));
    }
    let opened = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    let again = rustix::fs::fstat(&opened)?;
    if (again.st_dev, again.st_ino) != (node.st_dev, node.st_ino) {
        return Err(io::Error::other("/dev/pts/ptmx was changed meanwhile"));
    }
    Ok(opened)
}

fn is_devpts(file: impl AsFd) -> io::Result<bool> {
    Ok(i128::from(rustix::fs::fstatfs(file)?.f_type) == DEVPTS_SUPER_MAGIC)
}

/// Has `/dev/console` be the terminal.
fn mount_console(slave: &OwnedFd) -> io::Result<()> {
    let place = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mode = Mode::from_raw_mode(0o666);
    // The device of an image must not be opened, and need not be.
    let made = rustix::fs::openat2(
        CWD,
        "/dev/console",
        place | OFlags::EXCL | OFlags::WRONLY,
        mode,
        ResolveFlags::NO_MAGICLINKS,
    );
    match made {
        Ok(_) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let place = rustix::fs::openat2(
        CWD,
        "/dev/console",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )?;
    let clone = sys::mount::clone_mount(slave, "", false)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(clone, "", place, "", flags)?)
}
