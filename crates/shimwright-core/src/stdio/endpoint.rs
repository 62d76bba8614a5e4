//! Where streams lead: their names, and what is in the file system under these.
//!
//! A path may be on a file system that does not answer, such as one of a network. The shim process
//! asks only what the kernel has in memory, where the FIFO is that a client has just made. What is
//! not there, a launcher asks the file system.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use tokio::time::timeout;

use super::logger::{Program, READY_BOUND, Unready};
use super::uri::Place;
use crate::error::Error;
use crate::process::launcher::Launcher;
use crate::process::reaper::Reaper;

/// How often the kernel is asked again: a mount that is made anywhere at the same moment makes it
/// say that it does not know.
const TRIES: usize = 8;

/// Where a stream leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Nowhere.
    Null,
    /// A FIFO.
    Fifo(PathBuf),
    /// A file that a copier opens.
    File {
        path: PathBuf,
        /// Whether it is made if it is missing.
        make: bool,
    },
    /// A program that reads the outputs.
    Logger(Program),
}

impl Endpoint {
    async fn find(place: Place, reaper: &Reaper) -> Result<Self, Error> {
        Ok(match place {
            Place::Null => Self::Null,
            Place::Path(path) => {
                let is_fifo = match is_fifo_in_memory(&path) {
                    Some(known) => known,
                    None => ask(&path, reaper).await?,
                };
                if is_fifo {
                    Self::Fifo(path)
                } else {
                    Self::File { path, make: false }
                }
            }
            Place::File(path) => Self::File { path, make: true },
            Place::Logger(program) => Self::Logger(program),
        })
    }
}

/// The streams of one process.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(super) stdin: Endpoint,
    pub(super) stdout: Endpoint,
    pub(super) stderr: Endpoint,
}

impl Endpoints {
    /// Finds what these names stand for; an empty one leads nowhere.
    ///
    /// # Errors
    ///
    /// `Invalid` or `NotSupported` for a name that cannot be used, naming it.
    pub(crate) async fn find(
        stdin: &str,
        stdout: &str,
        stderr: &str,
        reaper: &Reaper,
    ) -> Result<Self, Error> {
        let input = Place::parse(stdin)?;
        if matches!(input, Place::File(_) | Place::Logger(_)) {
            return Err(Error::invalid(format!(
                "the standard input cannot be {stdin}"
            )));
        }
        let (stdout, stderr) = (Place::parse(stdout)?, Place::parse(stderr)?);
        Ok(Self {
            stdin: Endpoint::find(input, reaper).await?,
            stdout: Endpoint::find(stdout, reaper).await?,
            stderr: Endpoint::find(stderr, reaper).await?,
        })
    }
}

/// Whether there is a FIFO, if the kernel knows without asking a file system
/// (`RESOLVE_CACHED` of `openat2(2)`, since Linux 5.12).
fn is_fifo_in_memory(path: &Path) -> Option<bool> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for _ in 0..TRIES {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) {
            Ok(found) => {
                let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
                let found = rustix::fs::statx(found, "", flags, StatxFlags::TYPE).ok()?;
                return Some(FileType::from_raw_mode(found.stx_mode.into()).is_fifo());
            }
            Err(Errno::NOENT) => return Some(false),
            Err(Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Has a launcher find out whether there is a FIFO.
async fn ask(path: &Path, reaper: &Reaper) -> Result<bool, Error> {
    let launcher = Launcher::start(reaper, (), |()| {
        let found = std::fs::metadata(path);
        Ok(found.is_ok_and(|found| found.file_type().is_fifo()))
    })?;
    let unready = Unready::new(&launcher.handle()?)?;
    match timeout(READY_BOUND, launcher.reply()).await {
        Ok(answer) => {
            unready.became_ready();
            answer
        }
        Err(_) => Err(Error::invalid(format!(
            "the file system of the stream {} does not answer within {} s",
            path.display(),
            READY_BOUND.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::tests::{endpoints, fifo};

    #[test]
    fn a_fifo_that_was_just_made_is_known_without_a_launcher() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory, "out");
        assert_eq!(is_fifo_in_memory(Path::new(&path)), Some(true));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(is_fifo_in_memory(&file), Some(false));
    }

    #[test]
    fn the_input_is_no_logger_and_no_new_file() {
        for name in ["binary:///l", "file:///f"] {
            let error = endpoints(name, "", "").unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
