//! The launcher: a short-lived process that does for the shim what blocks or changes the process
//! it happens in.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::cgroup::Cgroups;
use crate::config::identity::ProcessId;
use crate::config::record::ContainerKind;
use crate::engine::exit::Status;
use crate::error::{self, Code, Context, Error};
use crate::process::reaper::Reaper;
use crate::sys;
use crate::sys::process::Forked;

/// What a launcher's job comes to: the answer, and the descriptors that go with it.
pub(crate) type Answer = Result<(Reply, Vec<OwnedFd>), Error>;

/// The longest reply in bytes; an error message is cut to fit.
const MAX_REPLY: usize = 64 << 10;

/// The most descriptors that come with a reply.
const MAX_HANDLES: usize = 3;

/// The first number that no program expects a descriptor at.
const FIRST_FREE: RawFd = 16;

/// What a launcher answers, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The container exists; its first process waits for `start`. A handle on it is attached, and
    /// the terminal if it has one.
    Created {
        init: ProcessId,
        cgroups: Cgroups,
        /// The spec has hooks to run after `start`.
        poststart: bool,
        kind: ContainerKind,
    },
    /// A process has joined the container and waits to be told to go on. Attached are a handle on
    /// it, a pipe on which it says why it could not, and the terminal if it has one.
    Joined { process: ProcessId },
    /// Whether there is a FIFO.
    Fifo(bool),
    /// What was asked for is done.
    Done,
    /// Nothing of what was asked for is left.
    Failed { code: Code, message: String },
}

impl From<Result<Reply, Error>> for Reply {
    fn from(result: Result<Reply, Error>) -> Self {
        result.unwrap_or_else(|error| {
            let mut message = error::chain(&error);
            let mut end = message.len().min(MAX_REPLY / 4);
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            Self::Failed {
                code: error.code(),
                message,
            }
        })
    }
}

/// The descriptor on which this process answers, if it is a launcher.
static ANSWER: AtomicI32 = AtomicI32::new(-1);

/// Closes what a launcher answers on, in a process that it has forked: only the launcher answers.
pub(crate) fn leave_the_answer() {
    let socket = ANSWER.swap(-1, Ordering::Relaxed);
    if socket >= 0 {
        sys::fd::close(socket);
    }
}

/// A launcher at work.
#[derive(Debug)]
pub(crate) struct Launcher {
    pid: i32,
    socket: AsyncFd<OwnedFd>,
    ended: oneshot::Receiver<Status>,
}

impl Launcher {
    /// Forks this process and runs `job` in the child, with only `keep` of its descriptors.
    ///
    /// # Errors
    ///
    /// The reason why there is no child. What the job does comes with [`reply`](Self::reply).
    pub(crate) fn start(
        reaper: &Reaper,
        keep: &[RawFd],
        job: impl FnOnce() -> Answer,
    ) -> Result<Self, Error> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("make a socket for a launcher")?;
        match sys::process::fork().context("start a launcher")? {
            Forked::Parent(pid) => {
                let ended = reaper.expect(pid);
                rustix::io::ioctl_fionbio(&ours, true).context("set up a launcher's socket")?;
                Ok(Self {
                    pid,
                    socket: sys::fd::watch(ours).context("watch a launcher's socket")?,
                    ended,
                })
            }
            Forked::Child => child(keep, theirs, job),
        }
    }

    /// Waits for the answer, and the descriptors that came with it, and for the launcher's end.
    ///
    /// Only then is the shim the parent of a first process: what that asks the kernel to do when
    /// its parent ends must not be about the launcher.
    pub(crate) async fn reply(mut self) -> Answer {
        let readable = tokio::io::Interest::READABLE;
        let received = tokio::select! {
            biased;
            received = self.socket.async_io(readable, |socket| receive(socket)) => {
                // The reaper outlives every launcher, so there is no other outcome.
                let _ = self.ended.await;
                received
            }
            // One that was killed has answered before, or never will, although a process that it
            // has forked may still hold its end of the socket.
            _ = &mut self.ended => match receive(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                received => received,
            },
        };
        let received = received.context("hear from a launcher")?;
        match received {
            Some((Reply::Failed { code, message }, _)) => Err(Error::Remote { code, message }),
            Some(answer) => Ok(answer),
            None => Err(Error::Failed {
                action: "finish the request".to_owned(),
                source: "the launcher ended without an answer".into(),
            }),
        }
    }
}

impl Launcher {
    /// A handle on the launcher's process. Nothing may have been awaited since its start.
    pub(crate) fn handle(&self) -> Result<OwnedFd, Error> {
        Pid::from_raw(self.pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .context("open a launcher's process")
    }

    /// Waits until the job has had another program take the launcher's place. Whoever awaits the
    /// receiver learns how that ended.
    ///
    /// # Errors
    ///
    /// Why it could not; the launcher has ended then.
    pub(crate) async fn replaced(self) -> Result<oneshot::Receiver<Status>, Error> {
        let received = self
            .socket
            .async_io(tokio::io::Interest::READABLE, |socket| receive(socket))
            .await
            .context("hear from a launcher")?;
        match received {
            // The socket has closed with the launcher's program.
            None => Ok(self.ended),
            Some((reply, _)) => {
                let _ = self.ended.await;
                match reply {
                    Reply::Failed { code, message } => Err(Error::Remote { code, message }),
                    _ => Err(Error::invalid("the launcher has executed nothing")),
                }
            }
        }
    }
}

/// The launcher's whole life.
fn child(keep: &[RawFd], socket: OwnedFd, job: impl FnOnce() -> Answer) -> ! {
    // A program that takes the launcher's place may be about to get the first numbers.
    let socket = rustix::io::fcntl_dupfd_cloexec(&socket, FIRST_FREE).unwrap_or(socket);
    let keep: Vec<RawFd> = keep.iter().copied().chain([socket.as_raw_fd()]).collect();
    ANSWER.store(socket.as_raw_fd(), Ordering::Relaxed);
    // A panic must not unwind into the frames that belong to the shim.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        sys::signal::reset_signals().context("reset the signals")?;
        sys::fd::close_all_but(&keep).context("close the shim's descriptors")?;
        sys::process::hide().context("hide from other processes")?;
        job()
    }));
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Error::Failed {
            action: "finish the request".to_owned(),
            source: "panicked".into(),
        })
    });
    let (reply, handles) = match outcome {
        Ok(answer) => answer,
        Err(error) => (Reply::from(Err(error)), Vec::new()),
    };
    let sent = send(&socket, &reply, &handles);
    sys::process::exit_now(u8::from(sent.is_err()))
}

fn send(socket: impl AsFd, reply: &Reply, handles: &[OwnedFd]) -> io::Result<()> {
    let text = serde_json::to_vec(reply)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handles: Vec<_> = handles.iter().map(AsFd::as_fd).collect();
    if !handles.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&handles)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&text)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(socket: impl AsFd) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_REPLY];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_HANDLES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut handles = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            handles.extend(received);
        }
    }
    match text.get(..received.bytes) {
        Some(text) if !text.is_empty() => Ok(Some((serde_json::from_slice(text)?, handles))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let kind = SocketType::SEQPACKET;
        rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_reply_arrives_with_its_handle() {
        let (ours, theirs) = pair();
        let handle = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let init = ProcessId::of(rustix::process::getpid()).unwrap();
        let sent = Reply::Created {
            init,
            cgroups: Cgroups::default(),
            poststart: false,
            kind: ContainerKind::Wasm,
        };
        send(&theirs, &sent, &[handle]).unwrap();
        let (reply, received) = receive(&ours).unwrap().unwrap();
        assert!(matches!(reply, Reply::Created { init: found, .. } if found == init));
        assert_eq!(received.len(), 1);
    }

    #[test]
    fn a_launcher_that_dies_is_noticed() {
        let (ours, theirs) = pair();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = Error::invalid("ä".repeat(MAX_REPLY));
        let (ours, theirs) = pair();
        send(&theirs, &Reply::from(Err(error)), &[]).unwrap();
        assert!(matches!(
            receive(&ours).unwrap(),
            Some((Reply::Failed { .. }, handles)) if handles.is_empty()
        ));
    }
}
