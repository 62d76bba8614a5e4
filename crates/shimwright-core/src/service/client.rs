//! The client that waits for the result of a call.
//!
//! The server drops the future of a call when the connection ends or the time is over. The work
//! goes on in a task of its own, so that it is never left half done, but it is told by a pipe,
//! which a launcher can watch too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;

use crate::error::{Context, Error};
use crate::process::launcher::{Keep, Launcher};
use crate::sys;

/// How long a launcher may take to undo what it did once nobody waits for it. containerd waits 5
/// seconds for the end of a container that it gives up, and a killed launcher's work is yet to be
/// undone then.
const BOUND: Duration = Duration::from_secs(2);

/// Held by the future that answers a call.
#[derive(Debug)]
pub(super) struct Waiting(Caller);

/// Tells whether that future is still there.
#[derive(Debug)]
pub(super) struct Wanted(OwnedFd, Caller);

/// Who waits, or has gone.
#[derive(Clone, Debug)]
pub(super) struct Caller(Arc<Mutex<Option<OwnedFd>>>);

/// Both sides of a call.
pub(super) fn call() -> Result<(Waiting, Wanted), Error> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    let caller = Caller(Arc::new(Mutex::new(Some(writer))));
    Ok((Waiting(caller.clone()), Wanted(reader, caller)))
}

impl Caller {
    /// From now on nobody waits, whether the client is there or not.
    pub(super) fn give_up(&self) {
        drop(self.writer().take());
    }

    /// Whether nobody waits any more.
    pub(super) fn has_gone(&self) -> bool {
        self.writer().is_none()
    }

    fn writer(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Keep for Wanted {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        kept.push(self.0.as_fd());
    }
}

impl Wanted {
    pub(super) fn caller(&self) -> Caller {
        self.1.clone()
    }

    /// The same for a launcher.
    pub(super) fn try_clone(&self) -> Result<OwnedFd, Error> {
        self.0.try_clone().context("duplicate a pipe")
    }

    /// Whether nobody waits any more.
    pub(super) fn is_over(&self) -> bool {
        sys::fd::is_hung_up(&self.0).unwrap_or_default()
    }

    /// Does something that can be dropped at any point, unless nobody waits for it any more.
    pub(super) async fn unless_over<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => done,
            over = self.over() => over.and_then(|()| Err(Error::invalid("the client has gone"))),
        }
    }

    /// Waits until nobody waits any more.
    async fn over(&self) -> Result<(), Error> {
        let pipe = sys::fd::watch(self.try_clone()?).context("watch a pipe")?;
        let over = pipe.async_io(Interest::READABLE, |pipe| match sys::fd::is_hung_up(pipe) {
            Ok(false) => Err(std::io::ErrorKind::WouldBlock.into()),
            other => other,
        });
        over.await.map(drop).context("watch a pipe")
    }

    /// Waits for a launcher's answer. One that nobody waits for undoes what it did; one that cannot
    /// is killed.
    pub(super) async fn answer<T: Serialize + DeserializeOwned>(
        &self,
        launcher: Launcher<T>,
    ) -> Result<T, Error> {
        let killer = launcher.killer()?;
        let answer = launcher.reply();
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            over = self.over() => over?,
        }
        tracing::info!("a client has gone before the outcome of its call was there");
        if let Ok(answer) = tokio::time::timeout(BOUND, &mut answer).await {
            return answer;
        }
        killer.kill();
        answer.await
    }
}
