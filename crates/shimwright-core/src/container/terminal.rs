//! Terminals: the pair of a process that has one, made in the launcher.
//!
//! A Linux program gets its terminal from the `devpts` of its own container, see
//! [`init`](super::init), so that it has a name there. A WebAssembly guest has no `devpts`, see
//! [`policy::restrict`](crate::policy::restrict), and no way to ask for a name: its terminal is
//! one of the node's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Process;
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
    /// It makes its terminal itself, of the size that is asked for.
    Own(Option<Winsize>),
}

impl Wiring {
    /// Connects what `exec` describes in a container of `kind`.
    pub(crate) fn new(
        stdio: Stdio,
        exec: &mut Exec,
        kind: ContainerKind,
        process: &Process,
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
            return Ok(Self::Own(size));
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

    /// What the process is given.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        match self {
            Self::Streams { streams, .. } => Some(streams),
            Self::Own(_) => None,
        }
    }

    /// The shim's end of the terminal, if there is one: `own` is that of the terminal which the process
    /// has made.
    pub(crate) fn master(self, own: Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Streams { master, .. } => Ok(master),
            Self::Own(size) => {
                if let (Some(size), Some(master)) = (size, &own) {
                    rustix::termios::tcsetwinsize(master, size)?;
                }
                Ok(own)
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
}
