//! The launcher: a short-lived fork of the shim process that does what may block or changes the
//! process that does it.
//!
//! It gets values that say which descriptors they need, and answers with one value, whose descriptors
//! are sent along.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::message::{self, MAX};
use crate::engine::exit::Status;
use crate::error::{self, Code, Context, Error};
use crate::process::reaper::Reaper;
use crate::sys;
use crate::sys::process::Forked;

/// The first number that no program expects a descriptor at.
const FIRST_FREE: RawFd = 16;

/// What a launcher is given: it names its descriptors, which stay open there. All others of the
/// shim's are closed.
pub(crate) trait Keep {
    /// Adds the descriptors.
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>);
}

impl Keep for OwnedFd {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        kept.push(self.as_fd());
    }
}

impl<T: Keep + ?Sized> Keep for &T {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        (**self).keep(kept);
    }
}

impl<T: Keep> Keep for Option<T> {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        self.iter().for_each(|one| one.keep(kept));
    }
}

impl<T: Keep> Keep for Vec<T> {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        self.iter().for_each(|one| one.keep(kept));
    }
}

impl<T: Keep, const N: usize> Keep for [T; N] {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        self.iter().for_each(|one| one.keep(kept));
    }
}

impl Keep for () {
    fn keep<'a>(&'a self, _: &mut Vec<BorrowedFd<'a>>) {}
}

macro_rules! keep_each {
    ($($part:ident)+) => {
        #[expect(non_snake_case, reason = "each part is named after its type")]
        impl<$($part: Keep),+> Keep for ($($part,)+) {
            fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
                let ($($part,)+) = self;
                $($part.keep(kept);)+
            }
        }
    };
}
keep_each!(A B C D);
keep_each!(A B C D E);

/// The answer of a launcher that another program takes the place of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Never {}

/// What a launcher sends, once.
#[derive(Debug, Serialize, Deserialize)]
enum Reply<T> {
    Done(T),
    /// Nothing of what was asked for is left.
    Failed {
        code: Code,
        message: String,
    },
}

impl<T> From<Result<T, Error>> for Reply<T> {
    fn from(outcome: Result<T, Error>) -> Self {
        outcome.map_or_else(
            |error| {
                let mut message = error::chain(&error);
                message.truncate(message.floor_char_boundary(MAX / 4));
                Self::Failed {
                    code: error.code(),
                    message,
                }
            },
            Self::Done,
        )
    }
}

impl<T> Reply<T> {
    fn answer(self) -> Result<T, Error> {
        match self {
            Self::Done(answer) => Ok(answer),
            Self::Failed { code, message } => Err(Error::Remote { code, message }),
        }
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

/// A launcher at work, which answers with a `T`.
#[derive(Debug)]
pub(crate) struct Launcher<T> {
    pid: i32,
    socket: AsyncFd<OwnedFd>,
    ended: oneshot::Receiver<Status>,
    answer: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Launcher<T> {
    /// Forks this process and runs `job` in the child, which is `given` a value with its
    /// descriptors.
    ///
    /// # Errors
    ///
    /// The reason why there is no child. What the job does comes with [`reply`](Self::reply).
    pub(crate) fn start<K: Keep>(
        reaper: &Reaper,
        given: K,
        job: impl FnOnce(K) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let (ours, theirs) = message::pair().context("make a socket for a launcher")?;
        match sys::process::fork().context("start a launcher")? {
            Forked::Parent(pid) => {
                let ended = reaper.expect(pid);
                rustix::io::ioctl_fionbio(&ours, true).context("set up a launcher's socket")?;
                Ok(Self {
                    pid,
                    socket: sys::fd::watch(ours).context("watch a launcher's socket")?,
                    ended,
                    answer: PhantomData,
                })
            }
            Forked::Child => child(theirs, given, job),
        }
    }

    /// Waits for the answer and for the launcher's end.
    ///
    /// So nothing of it is left when a client is answered.
    pub(crate) async fn reply(mut self) -> Result<T, Error> {
        let readable = tokio::io::Interest::READABLE;
        let received: io::Result<Option<Reply<T>>> = tokio::select! {
            biased;
            received = self.socket.async_io(readable, |socket| message::receive(socket)) => {
                // The reaper outlives every launcher, so there is no other outcome.
                let _ = self.ended.await;
                received
            }
            // One that was killed has answered before, or never will, although a process that it
            // has forked may still hold its end of the socket.
            _ = &mut self.ended => match message::receive(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                received => received,
            },
        };
        match received.context("hear from a launcher")? {
            Some(reply) => reply.answer(),
            None => Err(Error::Failed {
                action: "finish the request".to_owned(),
                source: "the launcher ended without an answer".into(),
            }),
        }
    }

    /// What ends the launcher and whatever it has started. Nothing may have been awaited since its
    /// start.
    pub(crate) fn killer(&self) -> Result<Killer, Error> {
        let handle = self.handle()?;
        Ok(Killer {
            handle,
            pid: self.pid,
        })
    }

    /// A handle on the launcher's process. Nothing may have been awaited since its start.
    pub(crate) fn handle(&self) -> Result<OwnedFd, Error> {
        Pid::from_raw(self.pid)
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .context("open a launcher's process")
    }
}

/// Ends a launcher with its process group: hooks have no other bound than it.
#[derive(Debug)]
pub(crate) struct Killer {
    handle: OwnedFd,
    pid: i32,
}

impl Killer {
    /// Ends them. The launcher's [answer](Launcher::reply) must still be awaited: as long as that
    /// has not come, nobody else can have its pid.
    pub(crate) fn kill(&self) {
        // Each may have ended meanwhile.
        let _ = sys::signal::pidfd_send_signal(&self.handle, libc::SIGKILL);
        if let Some(group) = Pid::from_raw(self.pid) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Launcher<Never> {
    /// Waits until the job has had another program take the launcher's place. Whoever awaits the
    /// receiver learns how that ended.
    ///
    /// # Errors
    ///
    /// Why it could not; the launcher has ended then.
    pub(crate) async fn replaced(self) -> Result<oneshot::Receiver<Status>, Error> {
        let readable = tokio::io::Interest::READABLE;
        let received = self
            .socket
            .async_io(readable, |socket| message::receive::<Reply<Never>>(socket));
        match received.await.context("hear from a launcher")? {
            // The socket has closed with the launcher's program.
            None => Ok(self.ended),
            Some(reply) => {
                let _ = self.ended.await;
                match reply.answer()? {}
            }
        }
    }
}

/// The launcher's whole life.
fn child<T: Serialize, K: Keep>(
    socket: OwnedFd,
    given: K,
    job: impl FnOnce(K) -> Result<T, Error>,
) -> ! {
    // A program that takes the launcher's place may be about to get the first numbers.
    let socket = rustix::io::fcntl_dupfd_cloexec(&socket, FIRST_FREE).unwrap_or(socket);
    ANSWER.store(socket.as_raw_fd(), Ordering::Relaxed);
    // A panic must not unwind into the frames that belong to the shim.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut kept = vec![socket.as_fd()];
        given.keep(&mut kept);
        let kept: Vec<_> = kept.iter().map(AsRawFd::as_raw_fd).collect();
        sys::signal::reset_signals().context("reset the signals")?;
        sys::fd::close_all_but(&kept).context("close the shim's descriptors")?;
        sys::process::hide().context("hide from other processes")?;
        // What it starts can be ended with it.
        rustix::process::setpgid(None, None).context("make a process group")?;
        job(given)
    }));
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Error::Failed {
            action: "finish the request".to_owned(),
            source: "panicked".into(),
        })
    });
    let sent = message::send(&socket, &Reply::from(outcome));
    sys::process::exit_now(u8::from(sent.is_err()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::handle::Handle;
    use crate::process::message::{pair, receive, send};

    #[test]
    fn an_answer_arrives_with_its_descriptors_in_their_places() {
        #[derive(Serialize, Deserialize)]
        struct Answer {
            name: String,
            first: Handle,
            none: Option<Handle>,
            second: Option<Handle>,
        }
        let open = |path| Handle::from(OwnedFd::from(std::fs::File::open(path).unwrap()));
        let device = |handle: Handle| rustix::fs::fstat(OwnedFd::from(handle)).unwrap().st_rdev;
        let (ours, theirs) = pair().unwrap();
        let answer = Answer {
            name: "a".to_owned(),
            first: open("/dev/null"),
            none: None,
            second: Some(open("/dev/zero")),
        };
        send(&theirs, &Reply::Done(answer)).unwrap();
        let received: Reply<Answer> = receive(&ours).unwrap().unwrap();
        let answer = received.answer().unwrap();
        assert_eq!(answer.name, "a");
        assert_eq!(device(answer.first), rustix::fs::makedev(1, 3));
        assert!(answer.none.is_none());
        assert_eq!(device(answer.second.unwrap()), rustix::fs::makedev(1, 5));
    }

    #[test]
    fn a_launcher_that_dies_is_noticed() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        assert!(receive::<Reply<()>>(&ours).unwrap().is_none());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = Error::invalid("ä".repeat(MAX));
        let (ours, theirs) = pair().unwrap();
        send(&theirs, &Reply::<()>::from(Err(error))).unwrap();
        assert!(matches!(
            receive::<Reply<()>>(&ours).unwrap(),
            Some(Reply::Failed { .. })
        ));
    }
}
