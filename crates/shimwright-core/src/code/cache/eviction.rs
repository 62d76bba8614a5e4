//! Keeps the cache within its size: removes the least recently used artifacts first.

use std::fs::{DirEntry, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lock_offset;
use crate::sys;

/// How old the time of the last use may become before it is written again: a start need not write.
const TOUCH_EVERY: Duration = Duration::from_secs(60 * 60);

/// Notes that an artifact is used. Its directory bears the time, as the file must not change.
pub(super) fn touch(place: &Path) {
    let touch = || -> io::Result<()> {
        let directory = File::open(place)?;
        let used = directory.metadata()?.modified()?;
        let now = SystemTime::now();
        // A clock that was set back makes it an error, too.
        if now.duration_since(used).is_ok_and(|age| age < TOUCH_EVERY) {
            return Ok(());
        }
        directory.set_modified(now)
    };
    if let Err(error) = touch() {
        tracing::debug!(%error, path = %place.display(), "cannot note that an artifact is used");
    }
}

/// Removes what a compilation has left that was killed, and artifacts until those that remain have
/// at most `most` bytes together; never the one called `keep`. Returns how many artifacts went.
///
/// A container that runs is not disturbed: it has its artifact's file open.
pub(super) fn sweep(directory: &Path, lock: &File, most: u64, keep: &str) -> io::Result<usize> {
    let mut artifacts = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match name.split_once('.') {
            // The compiling launcher holds the lock.
            Some((key, _))
                if is_key(key) && sys::lock::try_lock_byte(lock.as_fd(), lock_offset(key))? =>
            {
                remove(&entry.path())?;
            }
            None if is_key(name) && name != keep => artifacts.extend(Used::of(&entry)),
            _ => {}
        }
    }
    artifacts.sort_by_key(|artifact| artifact.at);
    let kept = Used::size(&directory.join(keep)).unwrap_or_default();
    let mut all: u64 = kept + artifacts.iter().map(|artifact| artifact.bytes).sum::<u64>();
    let mut gone = 0;
    for artifact in artifacts {
        if all <= most {
            break;
        }
        // Renamed first, so that nobody finds a part of it.
        let aside = artifact
            .place
            .with_extension(std::process::id().to_string());
        match std::fs::rename(&artifact.place, &aside) {
            Ok(()) => {
                remove(&aside)?;
                gone += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        all -= artifact.bytes;
    }
    Ok(gone)
}

/// Another sweep may be at the same.
fn remove(place: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_key(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Used {
    place: PathBuf,
    at: SystemTime,
    bytes: u64,
}

impl Used {
    /// `None` if it is gone meanwhile.
    fn of(entry: &DirEntry) -> Option<Self> {
        let place = entry.path();
        Some(Self {
            at: entry.metadata().ok()?.modified().ok()?,
            bytes: Self::size(&place).ok()?,
            place,
        })
    }

    fn size(place: &Path) -> io::Result<u64> {
        let mut bytes = 0;
        for file in std::fs::read_dir(place)? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }
}
