//! The shim's end of a terminal: copies the process's output to the client's FIFO, and the client's
//! input to the process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Held;
use super::copying::{Copying, End, write_all};
use super::endpoint::{Endpoint, Endpoints};
use crate::error::{Context, Error};
use crate::sys;

/// How much is copied at once, in bytes.
const CHUNK: usize = 8 << 10;

/// The client's ends of a terminal that is yet to be made.
#[derive(Debug)]
pub(crate) struct Client {
    /// `None` if nothing will be typed.
    input: Option<OwnedFd>,
    output: OwnedFd,
}

/// A terminal at work.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
    _input: Option<Copying>,
}

impl Client {
    /// Opens the streams of a client; a terminal has no separate standard error.
    pub(crate) fn open(endpoints: Endpoints) -> Result<(Self, Held), Error> {
        let mut held = Held::default();
        let input = match endpoints.stdin {
            Endpoint::Null => None,
            other => Some(held.input(other)?),
        };
        let (output, _) = held.outputs((endpoints.stdout, Endpoint::Null))?;
        for end in input.iter().chain([&output]) {
            rustix::io::ioctl_fionbio(end, true).context("set up a stream of a terminal")?;
        }
        Ok((Self { input, output }, held))
    }
}

impl Terminal {
    /// Starts copying. The second part ends when the process, and whatever else has the terminal
    /// open, is gone and everything has been written.
    pub(crate) fn connect(master: OwnedFd, client: Client) -> io::Result<(Self, Copying)> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let master = Arc::new(sys::fd::watch(master)?);
        let from = Arc::clone(&master);
        let to = End::of(client.output)?;
        let output = Copying::start(async move {
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = from.async_io(Interest::READABLE, |from| {
                    Ok(rustix::io::read(from, &mut chunk[..])?)
                });
                match read.await {
                    Ok(0) => return Ok(()),
                    Ok(length) => to.write_all(&chunk[..length]).await?,
                    // Nobody has the other end open any more (`pty(7)` is silent about it).
                    Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        });
        let input = match client.input {
            None => None,
            Some(input) => {
                let (from, to) = (End::of(input)?, Arc::clone(&master));
                Some(Copying::start(async move {
                    let mut chunk = vec![0; CHUNK];
                    loop {
                        let length = from.read(&mut chunk).await?;
                        if length == 0 {
                            return Ok(());
                        }
                        write_all(&to, &chunk[..length]).await?;
                    }
                }))
            }
        };
        let terminal = Self {
            master,
            _input: input,
        };
        Ok((terminal, output))
    }

    /// The descriptor to ask things of.
    pub(crate) fn master(&self) -> impl AsFd {
        self.master.get_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    use crate::container::terminal;
    use crate::stdio::tests::{endpoints, fifo};

    #[tokio::test]
    async fn what_is_typed_is_read_and_what_is_written_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let (typed, shown) = (fifo(&directory, "in"), fifo(&directory, "out"));
        let (client, held) = Client::open(endpoints(&typed, &shown, "").unwrap()).unwrap();
        let (master, process) = terminal::open().unwrap();
        let (terminal, mut output) = Terminal::connect(master, client).unwrap();
        let session = std::thread::spawn(move || {
            let mut screen = File::open(shown).unwrap();
            let mut keyboard = File::options().write(true).open(typed).unwrap();
            keyboard.write_all(b"hello\n").unwrap();
            let mut text = String::new();
            screen.read_to_string(&mut text).unwrap();
            text
        });
        let reading = tokio::task::spawn_blocking(move || {
            // All of it: a stream that stays behind would keep the terminal open.
            let process = process;
            let mut line = [0; 64];
            let length = rustix::io::read(&process.stdin, &mut line).unwrap();
            let mut stdout = File::from(process.stdout);
            stdout.write_all(b"and goodbye\n").unwrap();
            line[..length].to_vec()
        });
        assert_eq!(reading.await.unwrap(), b"hello\n");
        output.done().await;
        drop((terminal, held));
        // The terminal echoes and turns line feeds into new lines.
        assert_eq!(session.join().unwrap(), "hello\r\nand goodbye\r\n");
    }

    #[tokio::test]
    async fn a_terminal_without_a_client_shows_and_reads_nothing() {
        let (client, _held) = Client::open(endpoints("", "", "").unwrap()).unwrap();
        let (master, process) = terminal::open().unwrap();
        let (_terminal, mut output) = Terminal::connect(master, client).unwrap();
        let mut stdout = File::from(process.stdout);
        stdout.write_all(b"unseen").unwrap();
        drop((stdout, process.stdin, process.stderr));
        output.done().await;
    }
}
