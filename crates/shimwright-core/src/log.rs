//! The shim's log: lines for containerd, which copies them to its own.
//!
//! containerd reads them from the FIFO `log` in the bundle and opens that again after a restart.
//! Writing never waits and never fails: lines that nobody reads are dropped.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter};

/// Opens the log of a bundle and sends every event of this process and its launchers there.
///
/// Returns the descriptor, which a launcher has to keep open; `None` if there is no log.
pub(crate) fn open(path: &Path, debug: bool) -> Option<i32> {
    // Open for reading too: a FIFO opened so never breaks, nor is a reader waited for (`fifo(7)`).
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let number = descriptor.as_raw_fd();
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
        .with_writer(std::sync::Mutex::new(Fifo { descriptor }))
        .with_filter(filter);
    // A second call in one process would find the first still in place.
    tracing_subscriber::registry().with(lines).try_init().ok()?;
    Some(number)
}

struct Fifo {
    descriptor: OwnedFd,
}

impl Write for Fifo {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line of up to 4096 bytes is written whole or not at all (`pipe(7)`, PIPE_BUF).
        let _ = rustix::io::write(&self.descriptor, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_drops_lines_and_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        let mut fifo = Fifo {
            descriptor: rustix::fs::open(&path, flags, Mode::empty()).unwrap(),
        };
        for _ in 0..100 {
            assert_eq!(fifo.write(&[b'x'; 4096]).unwrap(), 4096);
        }
    }
}
