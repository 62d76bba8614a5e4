//! The shim's log: lines for containerd, which copies them to its own.
//!
//! containerd reads them from the FIFO `log` in the bundle and opens that again after a restart.
//! Writing never waits and never fails: lines that nobody reads are dropped. When the bundle goes
//! and others stay, the log continues in one of theirs.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter};

use crate::error::printable;
use crate::process::launcher::Keep;
use crate::sys;

/// Where the lines go.
#[derive(Debug)]
pub(crate) struct Log {
    fifo: Fifo,
    /// Whose log it is.
    bundle: Mutex<PathBuf>,
}

impl Log {
    /// Whether the lines go to this bundle.
    pub(crate) fn is_of(&self, bundle: &Path) -> bool {
        *self.bundle() == bundle
    }

    /// Continues in the log of another bundle, if it has one.
    pub(crate) fn move_to(&self, bundle: &Path) {
        let moved = open_fifo(bundle).and_then(|fifo| sys::fd::redirect(&*self.fifo.0, fifo));
        match moved {
            Ok(()) => *self.bundle() = bundle.to_owned(),
            Err(error) => tracing::debug!(%error, "no log in {}", bundle.display()),
        }
    }

    fn bundle(&self) -> MutexGuard<'_, PathBuf> {
        self.bundle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_fifo(bundle: &Path) -> io::Result<OwnedFd> {
    // Open for reading too: a FIFO opened so never breaks, nor is a reader waited for (`fifo(7)`).
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(bundle.join("log"), flags, Mode::empty())?)
}

/// Opens the log of a bundle and sends every event of this process and its launchers there; `None`
/// if there is no log.
pub(crate) fn open(bundle: &Path, debug: bool) -> Option<Log> {
    let fifo = Fifo(Arc::new(open_fifo(bundle).ok()?));
    let ours = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    // At its usual level libcontainer repeats as an error what the caller reports anyway.
    let theirs = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::OFF
    };
    let filter = filter::filter_fn(move |metadata| {
        let level = if metadata.target().starts_with("shimwright") {
            ours
        } else {
            theirs
        };
        *metadata.level() <= level
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer({
            let fifo = fifo.clone();
            move || fifo.clone()
        })
        .with_filter(filter);
    // A second call in one process would find the first still in place.
    tracing_subscriber::registry().with(lines).try_init().ok()?;
    Some(Log {
        fifo,
        bundle: Mutex::new(bundle.to_owned()),
    })
}

#[derive(Clone, Debug)]
struct Fifo(Arc<OwnedFd>);

/// The descriptor is the same for good.
impl Keep for Log {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        kept.push(self.fifo.0.as_fd());
    }
}

impl Write for Fifo {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // One event is one line, whatever names are in it.
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let shown = format!("{}\n", printable(text));
        // A line of up to 4096 bytes is written whole or not at all (`pipe(7)`, PIPE_BUF).
        let _ = rustix::io::write(&*self.0, shown.as_bytes());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        directory
    }

    fn log(bundle: &Path) -> Log {
        Log {
            fifo: Fifo(Arc::new(open_fifo(bundle).unwrap())),
            bundle: Mutex::new(bundle.to_owned()),
        }
    }

    #[test]
    fn a_full_log_drops_lines_and_does_not_wait() {
        let bundle = bundle();
        let mut fifo = log(bundle.path()).fifo;
        for _ in 0..100 {
            assert_eq!(fifo.write(&[b'x'; 4096]).unwrap(), 4096);
        }
    }

    #[test]
    fn the_log_continues_in_another_bundle() {
        let (first, second) = (bundle(), bundle());
        let log = log(first.path());
        log.move_to(Path::new("/nowhere"));
        assert!(log.is_of(first.path()));
        log.move_to(second.path());
        assert!(log.is_of(second.path()));
        log.fifo.clone().write_all(b"line\n").unwrap();
        let mut line = [0; 5];
        rustix::io::read(open_fifo(second.path()).unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"line\n");
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let bundle = bundle();
        let mut fifo = log(bundle.path()).fifo;
        fifo.write_all(b"path=a\nlevel=info msg=\x1b[2J\n").unwrap();
        let mut line = [0; 64];
        let length = rustix::io::read(open_fifo(bundle.path()).unwrap(), &mut line).unwrap();
        let expected: &[u8] = b"path=a\\nlevel=info msg=\\u{1b}[2J\n";
        assert_eq!(&line[..length], expected);
    }
}
