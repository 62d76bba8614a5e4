//! A logger: a program that containerd's client names to read a container's outputs (containerd,
//! `NewBinaryIO` of the runc shim and its package `logging`; schemes `binary` and `binary-v2`).
//!
//! It is a child of the shim process. Its descriptors 3 and 4 are the read ends of the standard
//! output and the standard error, and 5 is a pipe on which it says that it is ready. Nobody but
//! the container's processes holds the write ends, so it sees the end when they have ended.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::bundle::Bundle;
use crate::config::identity::ProcessId;
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::process::launcher::Launcher;
use crate::process::reaper::Reaper;
use crate::sys;

use super::copier::{self, Copy};

/// The number of the first descriptor it is given.
const FIRST: i32 = 3;

/// How long it may take until it is ready.
pub(super) const READY_BOUND: Duration = Duration::from_secs(10);

/// How long it may read after the last process of the container has ended. containerd's own shim
/// asks it to end at once, which costs what was written last.
const READ_BOUND: Duration = Duration::from_secs(5);

/// How long it may take to end after `SIGTERM`, as with containerd's own shim.
const TERM_BOUND: Duration = Duration::from_secs(12);

/// How long the kernel may take to end it.
const KILL_BOUND: Duration = Duration::from_secs(2);

/// What to execute as a logger.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(super) path: CString,
    /// The arguments behind the program's name.
    pub(super) args: Vec<CString>,
    /// Variables besides those that tell it the container.
    pub(super) env: Vec<CString>,
    /// It is ready only when it has said so; otherwise also when it has closed the pipe.
    pub(super) says_ready: bool,
}

impl Program {
    fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

/// Shows no argument and no variable: either may be a secret.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("path", &self.path)
            .field("args", &self.args.len())
            .field("env", &self.env.len())
            .field("says_ready", &self.says_ready)
            .finish()
    }
}

/// What reads or writes a container's streams and is yet to be started.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A program of the client's choice.
    Logger {
        program: Program,
        /// The read ends of the two outputs.
        outputs: [OwnedFd; 2],
    },
    /// A process of our own for streams that are files of the node.
    Copier(Vec<Copy>),
}

impl Pending {
    /// Starts it for a container and waits until it is ready.
    ///
    /// The process that is forked for it writes down who it is before it executes the program, so
    /// there is no moment in which a cleaner would miss it.
    ///
    /// # Errors
    ///
    /// Why it cannot be executed, or that it was not ready in time; it has ended then.
    pub(crate) async fn start(
        self,
        reaper: &Reaper,
        bundle: &Bundle,
        id: &str,
        namespace: &str,
    ) -> Result<Logger, Error> {
        let (program, outputs) = match self {
            Self::Logger { program, outputs } => (program, outputs),
            Self::Copier(copies) => return start_copier(copies, reaper, bundle).await,
        };
        let name = program.name();
        let says_ready = program.says_ready;
        let (ready, theirs) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe for a logger")?;
        let [stdout, stderr] = outputs;
        let launcher = Launcher::start(reaper, [stdout, stderr, theirs], |descriptors| {
            Err(become_it(&program, descriptors, bundle, id, namespace))
        })?;
        let process = launcher.handle()?;
        let unready = Unready::new(&process)?;
        let logger = Logger {
            name,
            process,
            ended: launcher.replaced().await?,
        };
        match timeout(READY_BOUND, is_ready(ready, says_ready)).await {
            Ok(Ok(true)) => {
                unready.became_ready();
                Ok(logger)
            }
            outcome => {
                let reason = match outcome {
                    Ok(Ok(_)) => "it has closed the pipe without a word".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("it has not said so within {} s", READY_BOUND.as_secs()),
                };
                let name = logger.name.clone();
                logger.kill().await;
                Err(Error::invalid(format!(
                    "the logger {name} is not ready: {reason}"
                )))
            }
        }
    }
}

/// Starts a copier, which is ready once it has opened the files.
async fn start_copier(
    copies: Vec<Copy>,
    reaper: &Reaper,
    bundle: &Bundle,
) -> Result<Logger, Error> {
    let launcher = Launcher::start(reaper, copies, |copies| {
        Err(match record(bundle) {
            Ok(()) => copier::become_it(copies),
            Err(error) => error,
        })
    })?;
    let process = launcher.handle()?;
    // A file system that does not answer may keep it for longer than anybody waits.
    let unready = Unready::new(&process)?;
    match timeout(READY_BOUND, launcher.replaced()).await {
        Ok(ended) => {
            let ended = ended?;
            unready.became_ready();
            Ok(Logger {
                name: "copier".to_owned(),
                process,
                ended,
            })
        }
        Err(_) => Err(Error::invalid(format!(
            "the files of the streams cannot be opened within {} s",
            READY_BOUND.as_secs()
        ))),
    }
}

/// A process that is killed unless it becomes ready, also if nobody waits for that any more.
pub(super) struct Unready(Option<OwnedFd>);

impl Unready {
    pub(super) fn new(process: &OwnedFd) -> Result<Self, Error> {
        let process = process.try_clone().context("duplicate a handle")?;
        Ok(Self(Some(process)))
    }

    pub(super) fn became_ready(mut self) {
        self.0 = None;
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            // It may have ended meanwhile.
            let _ = sys::signal::pidfd_send_signal(process, libc::SIGKILL);
        }
    }
}

/// Writes down this process, which is about to become one that a cleaner must find.
fn record(bundle: &Bundle) -> Result<(), Error> {
    let own = ProcessId::of(rustix::process::getpid()).context("inspect a logger's process")?;
    bundle.make_private()?;
    bundle.record_logger(own)
}

/// The launcher's part; returns only if the program cannot be executed.
fn become_it(
    program: &Program,
    descriptors: [OwnedFd; 3],
    bundle: &Bundle,
    id: &str,
    namespace: &str,
) -> Error {
    let prepare = || -> Result<(), Error> {
        record(bundle)?;
        rustix::process::chdir(bundle.directory())
            .with_context(|| format!("enter the bundle {}", bundle.directory().display()))?;
        sys::memory::allow_huge_pages();
        sys::fd::place(&descriptors, FIRST).context("hand the outputs to a logger")
    };
    if let Err(error) = prepare() {
        return error;
    }
    let variable = |name, value| CString::new(format!("{name}={value}"));
    let mut env = program.env.clone();
    let (id, namespace) = (
        variable("CONTAINER_ID", id),
        variable("CONTAINER_NAMESPACE", namespace),
    );
    match (id, namespace) {
        // `getenv(3)` finds the first one of a name.
        (Ok(id), Ok(namespace)) => env.splice(0..0, [id, namespace]),
        _ => return Error::invalid("NUL in the name of a container"),
    };
    let mut args = vec![program.path.clone()];
    args.extend_from_slice(&program.args);
    let failure = sys::exec::exec_path(&program.path, &args, &env);
    Error::invalid(format!("the logger {}: {failure}", program.name()))
}

/// Waits for a word; `false` if there will be none and there has to be one.
async fn is_ready(pipe: OwnedFd, says_ready: bool) -> io::Result<bool> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let mut word = [0];
    let read = sys::fd::watch(pipe)?
        .async_io(Interest::READABLE, |pipe| {
            Ok(rustix::io::read(pipe, &mut word)?)
        })
        .await?;
    Ok(read > 0 || !says_ready)
}

/// A logger or a copier that runs.
#[derive(Debug)]
pub(crate) struct Logger {
    name: String,
    process: OwnedFd,
    ended: oneshot::Receiver<Status>,
}

impl Logger {
    /// Waits until it has read everything and has ended, as it does when the container's last
    /// process has. One that does not is asked to end, and in the end is not asked.
    pub(crate) async fn stop(mut self) {
        let steps = [(READ_BOUND, libc::SIGTERM), (TERM_BOUND, libc::SIGKILL)];
        for (bound, signal) in steps {
            if timeout(bound, &mut self.ended).await.is_ok() {
                return;
            }
            tracing::warn!(logger = self.name, signal, "a logger does not end");
            // It may have ended meanwhile.
            let _ = sys::signal::pidfd_send_signal(&self.process, signal);
        }
        self.end().await;
    }

    async fn kill(self) {
        let _ = sys::signal::pidfd_send_signal(&self.process, libc::SIGKILL);
        self.end().await;
    }

    async fn end(self) {
        if timeout(KILL_BOUND, self.ended).await.is_err() {
            tracing::error!(logger = self.name, "a killed logger does not end");
        }
    }
}
