//! Terminals: the pair of a process that has one, made in the launcher.
//!
//! A Linux program gets its terminal from the `devpts` of its own container, as libcontainer makes
//! it, so that it has a name there. A WebAssembly guest has no `devpts`, see
//! [`policy::restrict`](crate::policy::restrict), and no way to ask for a name: its terminal is
//! one of the node's.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::executor::Exec;
use crate::config::record::ContainerKind;
use crate::stdio::{Stdio, Streams};

/// Opens a pair of the node's: the master, and the other end as the three streams of a process.
pub(crate) fn open() -> io::Result<(OwnedFd, Streams)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let stdin = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let streams = Streams {
        stdout: stdin.try_clone()?,
        stderr: stdin.try_clone()?,
        stdin,
    };
    Ok((master, streams))
}

/// How the streams of a process that is to be made are connected.
#[derive(Debug)]
pub(crate) enum Wiring {
    /// It is given these, which are a terminal if there is a master.
    Streams {
        streams: Streams,
        master: Option<OwnedFd>,
    },
    /// libcontainer makes its terminal, of the size that is asked for.
    Console(Console, Option<Winsize>),
}

impl Wiring {
    /// Connects what `exec` describes in a container of `kind`, whose private directory is given.
    pub(crate) fn new(
        stdio: Stdio,
        exec: &mut Exec,
        kind: ContainerKind,
        process: &Process,
        private: &Path,
    ) -> io::Result<Self> {
        let size = process.console_size().map(|size| {
            let limited = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
            window(limited(size.width()), limited(size.height()))
        });
        if let Stdio::Streams(streams) = stdio {
            return Ok(Self::Streams {
                streams,
                master: None,
            });
        }
        if (exec.kind(), kind) == (ContainerKind::Linux, ContainerKind::Linux) {
            return Ok(Self::Console(Console::listen(private)?, size));
        }
        exec.controls_terminal = true;
        let (master, streams) = open()?;
        if let Some(size) = size {
            rustix::termios::tcsetwinsize(&master, size)?;
        }
        Ok(Self::Streams {
            streams,
            master: Some(master),
        })
    }

    /// The shim's end of the terminal, if there is one. The process is ready.
    pub(crate) fn master(self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Streams { master, .. } => Ok(master),
            Self::Console(console, size) => {
                let master = console.receive()?;
                if let Some(size) = size {
                    rustix::termios::tcsetwinsize(&master, size)?;
                }
                Ok(Some(master))
            }
        }
    }
}

/// Changes the size of a terminal, in characters. Its foreground processes get a `SIGWINCH`.
pub(crate) fn resize(master: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    Ok(rustix::termios::tcsetwinsize(
        master,
        window(width, height),
    )?)
}

fn window(width: u16, height: u16) -> Winsize {
    Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Where libcontainer sends the master of a terminal that it makes ("console socket" of runc's
/// `docs/terminals.md`).
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens in `directory`, which nobody else can enter.
    pub(crate) fn listen(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("console-{}.sock", std::process::id()));
        // The path of a socket is at most 108 bytes, and a bundle's may be longer.
        let directory = std::fs::File::open(directory)?;
        let short = short_path(&directory, &path);
        Ok(Self {
            listener: UnixListener::bind(short)?,
            path,
        })
    }

    /// The socket, for a caller that connects by itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection, for libcontainer's first process to inherit.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let directory = std::fs::File::open(self.path.parent().unwrap_or(Path::new("/")))?;
        UnixStream::connect(short_path(&directory, &self.path))
    }

    /// Takes the master, which has been sent by the time the process is ready.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nobody has connected or sent anything.
    pub(crate) fn receive(self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (connection, _) = self.listener.accept()?;
        connection.set_nonblocking(true)?;
        let mut name = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            &connection,
            &mut [IoSliceMut::new(&mut name)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
            _ => None,
        });
        master.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn short_path(directory: &std::fs::File, path: &Path) -> PathBuf {
    use std::os::fd::AsRawFd;
    let directory = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    directory.join(path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_the_size_that_it_is_given() {
        let (master, streams) = open().unwrap();
        resize(&master, 132, 43).unwrap();
        let size = rustix::termios::tcgetwinsize(&streams.stdin).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
        assert!(rustix::termios::isatty(&streams.stderr));
    }

    #[test]
    fn a_console_hands_the_master_over_and_leaves_no_socket() {
        use std::io::IoSlice;
        let directory = tempfile::tempdir().unwrap();
        let console = Console::listen(directory.path()).unwrap();
        let connection = console.connect().unwrap();
        let (master, _streams) = open().unwrap();
        let handles = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&handles)));
        rustix::net::sendmsg(
            &connection,
            &[IoSlice::new(b"/dev/ptmx")],
            &mut control,
            rustix::net::SendFlags::empty(),
        )
        .unwrap();
        let received = console.receive().unwrap();
        resize(&received, 10, 20).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&master).unwrap().ws_row, 20);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_console_that_nobody_used_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let console = Console::listen(directory.path()).unwrap();
        assert!(console.receive().is_err());
    }
}
