//! What the shim process copies by itself: terminals and [relays](super::relay). It waits for both
//! sides in its event loop, and never for one of them alone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::sys;

/// Copies until there is nothing left to be copied, or it is dropped.
#[derive(Debug)]
pub(crate) struct Copying(JoinHandle<()>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Copying {
    pub(super) fn start(copy: impl Future<Output = io::Result<()>> + Send + 'static) -> Self {
        Self(tokio::spawn(async move {
            if let Err(error) = copy.await {
                tracing::debug!(%error, "a stream is no longer copied");
            }
        }))
    }

    /// Waits until everything has been copied.
    pub(crate) async fn done(&mut self) {
        // A panic there has ended it too.
        let _ = (&mut self.0).await;
    }
}

/// A client's end: most can be waited for, a plain file is always ready and cannot.
#[derive(Debug)]
pub(super) enum End {
    Waiting(AsyncFd<OwnedFd>),
    Ready(File),
}

impl End {
    pub(super) fn of(end: OwnedFd) -> io::Result<Self> {
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&end)?.st_mode);
        // epoll refuses plain files; `/dev/null` is refused on some kernels.
        if kind.is_fifo() || kind.is_socket() {
            Ok(Self::Waiting(sys::fd::watch(end)?))
        } else {
            Ok(Self::Ready(end.into()))
        }
    }

    pub(super) async fn read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Waiting(end) => {
                end.async_io(Interest::READABLE, |end| {
                    Ok(rustix::io::read(end, &mut *chunk)?)
                })
                .await
            }
            Self::Ready(file) => (&*file).read(chunk),
        }
    }

    pub(super) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Waiting(end) => write_all(end, bytes).await,
            Self::Ready(file) => (&*file).write_all(bytes),
        }
    }
}

pub(super) async fn write_all(to: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = to.async_io(Interest::WRITABLE, |to| Ok(rustix::io::write(to, bytes)?));
        bytes = &bytes[written.await?..];
    }
    Ok(())
}
