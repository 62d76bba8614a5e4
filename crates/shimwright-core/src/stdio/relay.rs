//! A relay: a pipe that is an output of an exec, and its copy to the client's FIFO in the shim
//! process.
//!
//! What an exec leaves in the background keeps its outputs, and with the FIFO itself its client
//! would never see their end. The shim closes the FIFO when the exec is deleted, as containerd's
//! own shim does (`copyPipes` in `pkg/process/io.go` there).
//!
//! A container's first process writes into the FIFO: when that process ends, nothing of its
//! container is left that could keep it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::PipeFlags;
use tokio::io::Interest;

use super::copying::{Copying, write_all};
use crate::error::{Context, Error};
use crate::sys;

/// How much is copied at once, in bytes: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// A relay that is yet to be started.
#[derive(Debug)]
pub(crate) struct Relay {
    from: OwnedFd,
    to: OwnedFd,
}

impl Relay {
    /// A relay to a FIFO that was opened without waiting, and the end of it that is the process's.
    pub(super) fn new(to: OwnedFd) -> Result<(Self, OwnedFd), Error> {
        let make = || {
            let (from, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&from, true)?;
            Ok::<_, rustix::io::Errno>((Self { from, to }, end))
        };
        make().context("make a pipe for an output")
    }

    /// Copies until no process holds the other end, or what is returned is dropped.
    pub(crate) fn start(self) -> io::Result<Copying> {
        let (from, to) = (sys::fd::watch(self.from)?, sys::fd::watch(self.to)?);
        Ok(Copying::start(async move {
            loop {
                // There is memory for a chunk only while there is one.
                let chunk = from.async_io(Interest::READABLE, |from| {
                    let mut chunk = Vec::with_capacity(CHUNK);
                    rustix::io::read(from, rustix::buffer::spare_capacity(&mut chunk))?;
                    Ok(chunk)
                });
                let chunk = chunk.await?;
                if chunk.is_empty() {
                    return Ok(());
                }
                write_all(&to, &chunk).await?;
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    fn relay() -> (Copying, File, File) {
        let (client, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&to, true).unwrap();
        let (relay, process) = Relay::new(to).unwrap();
        (relay.start().unwrap(), process.into(), client.into())
    }

    #[tokio::test]
    async fn everything_is_copied_at_the_pace_of_the_reader() {
        let (mut copying, mut process, mut client) = relay();
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || process.write_all(&sent).unwrap());
        let reader = std::thread::spawn(move || {
            let (mut read, mut some) = (Vec::<u8>::new(), [0; 1000]);
            loop {
                match client.read(&mut some).unwrap() {
                    0 => return read,
                    length => read.extend(&some[..length]),
                }
            }
        });
        copying.done().await;
        drop(copying);
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected);
    }

    #[tokio::test]
    async fn a_reader_sees_the_end_although_a_process_holds_the_other_end() {
        let (copying, mut process, mut client) = relay();
        process.write_all(b"written").unwrap();
        let reader = std::thread::spawn(move || {
            let mut first = [0; 7];
            client.read_exact(&mut first).unwrap();
            (first, client)
        });
        while !reader.is_finished() {
            tokio::task::yield_now().await;
        }
        let (first, mut client) = reader.join().unwrap();
        assert_eq!(&first, b"written");
        drop(copying);
        tokio::task::yield_now().await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        drop(process);
    }
}
