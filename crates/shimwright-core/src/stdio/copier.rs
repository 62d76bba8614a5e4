//! A copier: a small process between a container and files of the node that are its streams
//! (`file` URIs and plain paths), as the goroutines of containerd's runc shim are (containerd,
//! `pkg/process/io.go`).
//!
//! The container holds a pipe. With the file itself it could truncate it, make it setuid, or read
//! what others have written. The copier is a process because files may block for as long as they
//! like, and the shim process must not. Only containers with such streams have one.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Context, Error};
use crate::process::idle::{SETTLED, release_memory};
use crate::process::launcher::Keep;
use crate::process::role;
use crate::sys;

/// The number of the first descriptor it is given; each stream is a pair of them, from and to.
pub(super) const FIRST: i32 = 3;

/// How much is copied at once, in bytes: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// How much a pipe takes without waiting once it is writable (`pipe(7)`, PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// A stream that leads to a file of the node, or comes from one.
#[derive(Debug)]
pub(crate) enum Copy {
    /// What the container writes goes to the end of a file.
    Output {
        from: OwnedFd,
        to: PathBuf,
        /// Whether the file is made if it is missing, with its directories.
        make: bool,
    },
    /// The container reads a file.
    Input { from: PathBuf, to: OwnedFd },
}

impl Copy {
    /// An output, and the end of it that is the container's.
    pub(super) fn output(to: PathBuf, make: bool) -> Result<(Self, OwnedFd), Error> {
        let (from, writer) = pipe()?;
        Ok((Self::Output { from, to, make }, writer))
    }

    /// An input, and the end of it that is the container's.
    pub(super) fn input(from: PathBuf) -> Result<(Self, OwnedFd), Error> {
        let (reader, to) = pipe()?;
        Ok((Self::Input { from, to }, reader))
    }

    /// Opens the file: where to read and where to write. It may block.
    fn open(self) -> Result<[OwnedFd; 2], Error> {
        // A terminal of the node's must not become this process's own.
        let flags = OFlags::NOCTTY.bits().cast_signed();
        match self {
            Self::Output { from, to, make } => {
                let open = || {
                    if let Some(parent) = to.parent().filter(|_| make) {
                        let mut directories = DirBuilder::new();
                        directories.recursive(true).mode(0o755).create(parent)?;
                    }
                    let mut options = OpenOptions::new();
                    options.append(true).create(make).mode(0o644);
                    options.custom_flags(flags).open(&to)
                };
                let file = open().with_context(|| format!("open the output {}", to.display()))?;
                Ok([from, file.into()])
            }
            Self::Input { from, to } => {
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags(flags)
                    .open(&from)
                    .with_context(|| format!("open the standard input {}", from.display()))?;
                Ok([file.into(), to])
            }
        }
    }
}

impl Keep for Copy {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        kept.push(match self {
            Self::Output { from, .. } => from.as_fd(),
            Self::Input { to, .. } => to.as_fd(),
        });
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe for a copier")
}

/// Opens the files of all streams and executes this program in its role; returns only if that
/// fails. Launcher process.
pub(super) fn become_it(copies: Vec<Copy>) -> Error {
    const OWN: &CStr = c"/proc/self/exe";
    let pairs: Result<Vec<_>, Error> = copies.into_iter().map(Copy::open).collect();
    let pairs: Vec<OwnedFd> = match pairs {
        Ok(pairs) => pairs.into_iter().flatten().collect(),
        Err(error) => return error,
    };
    let environment = format!("{}={}", role::COPIER, pairs.len() / 2);
    let prepare = || -> Result<CString, Error> {
        rustix::process::chdir("/").context("leave the bundle")?;
        sys::fd::place(&pairs, FIRST).context("hand the streams to a copier")?;
        CString::new(environment).context("tell a copier its streams")
    };
    match prepare() {
        Ok(environment) => {
            let failure = sys::exec::exec_path(OWN, &[c"copier".to_owned()], &[environment]);
            Error::invalid(format!("cannot execute a copier: {failure}"))
        }
        Err(error) => error,
    }
}

/// The copier's whole life, which ends with the last of its streams.
pub(crate) fn main(count: usize) -> ExitCode {
    match inherit(count).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn inherit(count: usize) -> io::Result<Vec<Stream>> {
    // It was executed as `/proc/self/exe`, and would be called `exe`.
    let _ = rustix::thread::set_name(c"copier");
    // All it needs is open.
    sys::process::hide()?;
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, none)?;
    (FIRST..)
        .step_by(2)
        .take(count)
        .map(|from| Stream::new(sys::fd::inherited(from)?, sys::fd::inherited(from + 1)?))
        .collect()
}

/// A stream at work.
#[derive(Debug)]
struct Stream {
    from: File,
    to: File,
    /// It is an input, so the pipe is where it leads to.
    is_input: bool,
}

impl Stream {
    fn new(from: OwnedFd, to: OwnedFd) -> io::Result<Self> {
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode);
        Ok(Self {
            from: from.into(),
            to: to.into(),
            is_input: !kind.is_fifo(),
        })
    }

    /// What has to be waited for: a file is always ready.
    fn wanted(&self) -> PollFd<'_> {
        if self.is_input {
            PollFd::from_borrowed_fd(self.to.as_fd(), PollFlags::OUT)
        } else {
            PollFd::from_borrowed_fd(self.from.as_fd(), PollFlags::IN)
        }
    }

    /// Copies once, without waiting for the container. Whether there may be more.
    fn copy(&mut self, chunk: &mut [u8]) -> bool {
        let room = if self.is_input { PIPE_BUF } else { chunk.len() };
        let length = match self.from.read(&mut chunk[..room]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => 0,
        };
        if length == 0 {
            return false;
        }
        let written = self.to.write_all(&chunk[..length]);
        // A container must not stop, nor end, because the disk of its log is full: what cannot be
        // written is lost, and what comes later may find room.
        written.is_ok() || !self.is_input
    }
}

fn run(mut streams: Vec<Stream>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut settled = false;
    let bound = Timespec::try_from(SETTLED).map_err(io::Error::other)?;
    while !streams.is_empty() {
        let ready: Vec<bool> = {
            let mut wanted: Vec<_> = streams.iter().map(Stream::wanted).collect();
            let bound = Some(&bound).filter(|_| !settled);
            match poll(&mut wanted, bound) {
                Ok(0) => {
                    settled = true;
                    release_memory();
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            wanted.iter().map(|one| !one.revents().is_empty()).collect()
        };
        let mut ready = ready.into_iter();
        streams.retain_mut(|stream| !ready.next().unwrap_or_default() || stream.copy(&mut chunk));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(copies: Vec<Copy>) -> Vec<Stream> {
        let open = |copy: Copy| {
            let [from, to] = copy.open().unwrap();
            Stream::new(from, to).unwrap()
        };
        copies.into_iter().map(open).collect()
    }

    #[test]
    fn outputs_are_appended_and_an_input_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let (out, err, typed) = (
            directory.path().join("log/out"),
            directory.path().join("err"),
            directory.path().join("in"),
        );
        std::fs::write(&err, "before ").unwrap();
        // More than a pipe takes.
        let input = vec![b'x'; 200_000];
        std::fs::write(&typed, &input).unwrap();
        let (first, stdout) = Copy::output(out.clone(), true).unwrap();
        let (second, stderr) = Copy::output(err.clone(), false).unwrap();
        let (third, stdin) = Copy::input(typed).unwrap();
        let copier = streams(vec![first, second, third]);
        let copier = std::thread::spawn(move || run(copier));
        File::from(stderr).write_all(b"and after").unwrap();
        File::from(stdout).write_all(b"output").unwrap();
        let mut read = Vec::new();
        File::from(stdin).read_to_end(&mut read).unwrap();
        copier.join().unwrap().unwrap();
        assert_eq!(read, input);
        assert_eq!(std::fs::read_to_string(out).unwrap(), "output");
        assert_eq!(std::fs::read_to_string(err).unwrap(), "before and after");
    }

    #[test]
    fn an_input_that_nobody_reads_any_more_ends_the_copier() {
        let (copy, stdin) = Copy::input("/dev/zero".into()).unwrap();
        let copier = streams(vec![copy]);
        let copier = std::thread::spawn(move || run(copier));
        let mut some = [1; 16];
        File::from(stdin).read_exact(&mut some).unwrap();
        assert_eq!(some, [0; 16]);
        copier.join().unwrap().unwrap();
    }

    #[test]
    fn a_full_disk_loses_output_and_stops_nobody() {
        let (copy, stdout) = Copy::output("/dev/full".into(), false).unwrap();
        let copier = streams(vec![copy]);
        let copier = std::thread::spawn(move || run(copier));
        let mut stdout = File::from(stdout);
        for _ in 0..8 {
            stdout.write_all(&[b'x'; CHUNK]).unwrap();
        }
        drop(stdout);
        copier.join().unwrap().unwrap();
    }

    #[test]
    fn a_plain_path_is_not_made() {
        let (copy, _end) = Copy::output("/nowhere/at all".into(), false).unwrap();
        let error = crate::error::chain(&copy.open().unwrap_err());
        assert!(
            error.starts_with("cannot open the output /nowhere/at all: No such file"),
            "{error}"
        );
    }
}
