//! A cgroup's directory with those below it: their processes, and removing them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// Adds the processes of a group and of those below it.
pub(super) fn collect_processes(directory: &Path, found: &mut Vec<Pid>) -> io::Result<()> {
    let text = match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => text,
        // ENODEV: removed between opening and reading. One whose path is too long never was.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::ENAMETOOLONG)
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    found.extend(
        text.lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?)),
    );
    for below in subdirectories(directory)? {
        collect_processes(&below, found)?;
    }
    Ok(())
}

/// The directories in one; none if it has just been removed, perhaps by another cleaner.
pub(super) fn subdirectories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found,
    }
}

/// Removes a group and those below it, which are without processes or soon will be.
pub(super) fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let error = match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.raw_os_error() {
            // One whose path is too long never was.
            Some(libc::ENOENT | libc::ENAMETOOLONG) => return Ok(()),
            Some(libc::EBUSY) if Instant::now() < deadline => {
                for below in subdirectories(directory).unwrap_or_default() {
                    remove_tree(&below, deadline)?;
                }
                // A process that has been reaped leaves its group a moment later, and v1
                // has no event for that.
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => return Err(error),
        }
    }
}
