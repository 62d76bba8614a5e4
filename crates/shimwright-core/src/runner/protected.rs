//! The shim's own program, in a form that a process inside a container may be executed from.
//!
//! Such a process can be asked for its executable through `/proc/PID/exe`, whatever its root is, and
//! root in the container could write to it (CVE-2019-5736). So the shim process, whose forks enter
//! containers, and every process it executes run from a file that nothing can be written through: the
//! node's own file behind a read-only mount, whose pages are shared as ever, or on a kernel without
//! such mounts a sealed copy in memory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};

use crate::sys;

/// The program of this process.
const RUNNING: &str = "/proc/self/exe";

/// The program of this process, protected: to be called where it was executed by its path.
///
/// # Errors
///
/// Neither a read-only mount nor a copy is possible.
pub(crate) fn program() -> io::Result<OwnedFd> {
    // Also if a filter of system calls, such as that of a container around us, refuses.
    behind_a_mount()
        .or_else(|_| sys::mount::read_only_clone(RUNNING, false))
        .or_else(|_| sealed_copy())
}

/// The program of a process that was executed from what [`program`] gives: it is protected already.
pub(crate) fn running() -> io::Result<OwnedFd> {
    let program = rustix::fs::open(RUNNING, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_protected(&program)? {
        return Ok(program);
    }
    Err(io::Error::other("it can be written through its mount"))
}

fn is_protected(program: &OwnedFd) -> io::Result<bool> {
    let flags = rustix::fs::fstatvfs(program)?.f_flag;
    let sealed = || rustix::fs::fcntl_get_seals(program).is_ok_and(|seals| !seals.is_empty());
    Ok(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) || sealed())
}

/// A clone of the whole mount that the program is on, so that the kernel still tells its path
/// (`/proc/PID/exe`, `/proc/PID/maps`) to those who look for it.
fn behind_a_mount() -> io::Result<OwnedFd> {
    let path = std::fs::read_link(RUNNING)?;
    let running = rustix::fs::stat(RUNNING)?;
    for root in path.ancestors() {
        if !is_mount_root(root)? {
            continue;
        }
        let clone = sys::mount::read_only_clone(root, false)?;
        let inside = path.strip_prefix(root).unwrap_or(Path::new(""));
        let found = find(clone.as_fd(), inside.as_os_str());
        if let Ok(found) = found
            && let Ok(stat) = rustix::fs::fstat(&found)
            && (stat.st_dev, stat.st_ino) == (running.st_dev, running.st_ino)
        {
            return Ok(found);
        }
        break;
    }
    // Its path is another file's by now, or is covered by a mount. Then the file alone will do.
    Err(io::ErrorKind::NotFound.into())
}

fn is_mount_root(path: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        // The path of a file that has been replaced ends in " (deleted)".
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn find(clone: impl AsFd, inside: &OsStr) -> io::Result<OwnedFd> {
    if inside.is_empty() {
        return clone.as_fd().try_clone_to_owned();
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(clone, inside, flags, Mode::empty())?)
}

/// A copy in memory, which costs each shim process the size of the program.
fn sealed_copy() -> io::Result<OwnedFd> {
    let mut copy = sys::memory::sealable_memfd(c"containerd-shim")?;
    io::copy(&mut File::open(RUNNING)?, &mut copy)?;
    sys::memory::seal(&copy)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_is_the_program_and_is_protected() {
        let copy = sealed_copy().unwrap();
        assert!(is_protected(&copy).unwrap());
        let length = std::fs::metadata(RUNNING).unwrap().len();
        assert_eq!(
            File::from(copy.try_clone().unwrap())
                .metadata()
                .unwrap()
                .len(),
            length
        );
        assert!(rustix::io::write(&copy, b"x").is_err());
        assert!(rustix::fs::ftruncate(&copy, 0).is_err());
    }

    #[test]
    fn a_file_that_can_be_written_is_not_protected() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("a")).unwrap();
        assert!(!is_protected(&file.into()).unwrap());
    }
}
