//! The shim's side of the streams of one process: a task's first process or an exec.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::bundle::Bundle;
use crate::container::terminal::resize;
use crate::error::{Context, Error};
use crate::process::reaper::Reaper;
use crate::stdio::terminal::{Client, Terminal};
use crate::stdio::{self, Copying, Endpoints, Held, Logger, Stdio};

/// How long `delete` waits for output that nobody has read or opened yet.
const CLIENT_BOUND: Duration = Duration::from_secs(5);

/// The streams as the client named them.
#[derive(Clone, Default)]
pub(super) struct StreamPaths {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// Leaves out the queries, with the arguments and variables of loggers.
impl fmt::Debug for StreamPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn plain(name: &str) -> &str {
            name.split('?').next().unwrap_or_default()
        }
        f.debug_struct("StreamPaths")
            .field("stdin", &plain(&self.stdin))
            .field("stdout", &plain(&self.stdout))
            .field("stderr", &plain(&self.stderr))
            .field("terminal", &self.terminal)
            .finish()
    }
}

/// The streams of one process.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) paths: StreamPaths,
    held: Mutex<Held>,
    terminal: OnceLock<Terminal>,
    /// Whether the process is an exec, which may leave processes that keep its outputs.
    is_exec: bool,
    /// What the process writes, if that is to be copied.
    copying: Mutex<Vec<Copying>>,
    /// What reads or copies the streams, if they are no FIFOs.
    loggers: Mutex<Vec<Logger>>,
    /// Waits for clients that have not read or opened their outputs yet, until `delete`.
    waiting: Mutex<Option<JoinHandle<()>>>,
}

/// The client's ends of a terminal, until there is one.
#[derive(Debug)]
pub(super) struct Pending(Option<Client>);

impl Io {
    pub(super) fn new(paths: StreamPaths, is_exec: bool) -> Self {
        Self {
            paths,
            is_exec,
            held: Mutex::default(),
            terminal: OnceLock::new(),
            copying: Mutex::default(),
            loggers: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Opens what the client has named, for a process that is about to be made.
    pub(super) async fn open(&self, reaper: &Reaper) -> Result<(Stdio, Pending), Error> {
        let paths = &self.paths;
        let stderr = if paths.terminal { "" } else { &paths.stderr };
        let endpoints = Endpoints::find(&paths.stdin, &paths.stdout, stderr, reaper).await?;
        if paths.terminal {
            let (client, held) = Client::open(endpoints)?;
            *lock(&self.held) = held;
            return Ok((Stdio::Terminal, Pending(Some(client))));
        }
        let (streams, held, copying) = if self.is_exec {
            stdio::open_relayed(endpoints)?
        } else {
            let (streams, held) = stdio::open(endpoints)?;
            (streams, held, Vec::new())
        };
        *lock(&self.held) = held;
        *lock(&self.copying) = copying;
        Ok((Stdio::Streams(streams), Pending(None)))
    }

    /// Starts what is to read or copy the opened streams, and waits until it is ready.
    pub(super) async fn start_loggers(
        &self,
        reaper: &Reaper,
        bundle: &Bundle,
        id: &str,
        namespace: &str,
    ) -> Result<(), Error> {
        let pending = lock(&self.held).take_pending();
        for pending in pending {
            let started = pending.start(reaper, bundle, id, namespace).await?;
            lock(&self.loggers).push(started);
        }
        Ok(())
    }

    /// Waits until what reads the outputs of an ended process has read them.
    pub(super) async fn stop_loggers(&self) {
        let loggers = std::mem::take(&mut *lock(&self.loggers));
        futures::future::join_all(loggers.into_iter().map(Logger::stop)).await;
    }

    /// The process has been made, with this terminal if it was to have one.
    pub(super) fn connect(&self, pending: Pending, master: Option<OwnedFd>) -> Result<(), Error> {
        let (Some(client), Some(master)) = (pending.0, master) else {
            return Ok(());
        };
        let (terminal, copying) =
            Terminal::connect(master, client).context("connect the terminal")?;
        lock(&self.copying).push(copying);
        // Nobody else sets it: a process is made once.
        let _ = self.terminal.set(terminal);
        Ok(())
    }

    /// Lets the process see the end of its standard input.
    pub(super) fn close_stdin(&self) {
        lock(&self.held).close_stdin();
    }

    /// Changes the size of the terminal; a process without one has nothing to change.
    pub(super) fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        let Some(terminal) = self.terminal.get() else {
            return Ok(());
        };
        let in_characters = |number: u32, what: &str| {
            u16::try_from(number)
                .map_err(|_| Error::invalid(format!("{what} of a terminal is too large: {number}")))
        };
        let width = in_characters(width, "the width")?;
        let height = in_characters(height, "the height")?;
        resize(terminal.master().as_fd(), width, height).context("resize the terminal")
    }

    /// The process has ended: what it wrote is still to be read.
    pub(super) fn ended(&self) {
        let unseen = lock(&self.held).take_unseen();
        let copying = std::mem::take(&mut *lock(&self.copying));
        let waiting = tokio::spawn(async move {
            for mut copying in copying {
                copying.done().await;
            }
            unseen.opened().await;
        });
        *lock(&self.waiting) = Some(waiting);
    }

    /// Gives clients that are late, on a busy machine, the time to open and read the outputs: what
    /// was written would be lost with the last descriptor, and their opening would wait for ever.
    /// Then closes everything, although processes that an exec has left may still hold its outputs.
    pub(super) async fn close(&self, id: &str) {
        self.stop_loggers().await;
        let waiting = lock(&self.waiting).take();
        if let Some(mut waiting) = waiting
            && tokio::time::timeout(CLIENT_BOUND, &mut waiting)
                .await
                .is_err()
        {
            tracing::debug!(id, "nobody has read an output to its end");
            waiting.abort();
        }
        lock(&self.copying).clear();
        *lock(&self.held) = Held::default();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
