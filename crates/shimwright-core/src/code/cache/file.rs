//! Files that nobody in a container can change: copies of modules, and stored artifacts.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::sys;

/// A copy of at most `most` bytes that nobody can change any more.
///
/// What is compiled must be what was hashed: the file may be in a volume that someone else writes
/// to, and would otherwise leave other code under this content's key. It may also grow meanwhile.
pub(crate) fn frozen(mut file: &File, most: u64) -> io::Result<File> {
    let mut copy = sys::memory::sealable_memfd(c"wasm")?;
    file.rewind()?;
    let mut left = most;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        left = left
            .checked_sub(read as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        copy.write_all(&buffer[..read])?;
    }
    copy.rewind()?;
    sys::memory::seal(&copy)?;
    Ok(copy)
}

/// Opens an artifact so that nobody who gets the descriptor can do more than read: not write, and
/// not change its mode, whatever user and capabilities they have. The mount is read-only.
///
/// Only root can make mounts. Another user has no containers, only the tests of an engine.
pub(super) fn open_stored(path: &Path) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    if !rustix::process::geteuid().is_root() {
        return File::open(path);
    }
    match sys::mount::read_only_clone(path, false) {
        // The open file keeps the mount, which is attached nowhere, when the clone is closed.
        Ok(clone) => File::open(format!("/proc/self/fd/{}", clone.as_raw_fd())),
        // Before Linux 5.12 the mode protects it, and that nobody in a container owns it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS)) => File::open(path),
        Err(error) => Err(error),
    }
}
