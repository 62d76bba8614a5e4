//! A process of a container: its first process or an exec. Both are signalled, awaited and
//! described in the same way.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::events::Events;
use super::io::{Io, StreamPaths};
use super::state::{Exited, Name, State, Transition};
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::sys;

/// One process. It exists from the moment its id is taken.
pub(super) struct Process {
    pub(super) name: Name,
    pub(super) io: Io,
    state: watch::Sender<State>,
    /// A pidfd, once there is a process: unlike a pid, it never means another process.
    handle: OnceLock<OwnedFd>,
    /// The pipe on which the process waits to be told to go on.
    waiting: Mutex<Option<OwnedFd>>,
    events: Arc<Events>,
}

/// Leaves out the queue of events, which all processes share.
impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("io", &self.io)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Process {
    pub(super) fn new(name: Name, paths: StreamPaths, state: State, events: &Arc<Events>) -> Self {
        Self {
            io: Io::new(paths, name.exec.is_some()),
            name,
            state: watch::Sender::new(state),
            handle: OnceLock::new(),
            waiting: Mutex::default(),
            events: Arc::clone(events),
        }
    }

    /// The id of the exec, or that of the container.
    pub(super) fn id(&self) -> &str {
        self.name.id()
    }

    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// The state, and each change of it.
    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Makes a transition and publishes its event. Nothing comes in between, because there is one
    /// thread and nothing is awaited.
    pub(super) fn change(
        &self,
        transition: impl FnOnce(&mut State, &Name) -> Transition,
    ) -> Result<(), Error> {
        let mut outcome = Ok(None);
        self.state.send_if_modified(|state| {
            outcome = transition(state, &self.name);
            outcome.is_ok()
        });
        if let Some(event) = outcome? {
            self.events.publish(&event);
        }
        Ok(())
    }

    /// Records that the process is no longer frozen. Publishes nothing.
    pub(super) fn thawed(&self) {
        self.state.send_if_modified(State::thawed);
    }

    /// Records that the process has ended, or that there will be none. Only the first end counts.
    pub(super) fn stopped(&self, exited: Exited) {
        // This transition is legal in every state.
        let _ = self.change(|state, name| state.stopped(name, exited));
    }

    /// Records the end of the process. Its clients may still read what it wrote.
    pub(super) fn ended(&self, exited: Exited) {
        self.io.ended();
        self.stopped(exited);
    }

    /// Waits until the process has ended.
    pub(super) async fn exit(&self) -> Exited {
        let mut state = self.subscribe();
        loop {
            if let Some(exited) = state.borrow_and_update().exited() {
                return exited;
            }
            if state.changed().await.is_err() {
                // The sender lives in the process that the caller holds.
                return Exited::now(Status::KILLED);
            }
        }
    }

    /// Records the pidfd of the new process. A process is made once, so it is set once.
    pub(super) fn made(&self, handle: OwnedFd, start: OwnedFd) -> &OwnedFd {
        *self.waiting() = Some(start);
        self.handle.get_or_init(|| handle)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the process to go on; there is room in the pipe, so nothing here waits for it.
    pub(super) fn go_on(&self) -> Result<(), Error> {
        let waiting = self.waiting().take();
        let waiting = waiting.ok_or(Error::Finished)?;
        rustix::io::write(waiting, &[1]).context("tell the process to go on")?;
        Ok(())
    }

    /// The pidfd of the process.
    pub(super) fn handle(&self) -> Result<&OwnedFd, Error> {
        self.handle.get().ok_or(Error::Finished)
    }

    /// Sends a signal to the process.
    pub(super) fn kill(&self, signal: u32) -> Result<(), Error> {
        self.state().killable(&self.name)?;
        send_signal(self.handle()?, signal)
    }

    /// Changes the size of the process's terminal.
    pub(super) fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        self.state().resizable(&self.name)?;
        self.io.resize(width, height)
    }
}

/// Sends a signal to the process of a pidfd.
pub(super) fn send_signal(handle: impl AsFd, signal: u32) -> Result<(), Error> {
    let Some(signal) = i32::try_from(signal)
        .ok()
        .filter(|signal| (0..=64).contains(signal))
    else {
        return Err(Error::invalid(format!("unknown signal {signal}")));
    };
    sys::signal::pidfd_send_signal(handle, signal).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => Error::Finished,
        _ => Error::Failed {
            action: format!("send signal {signal}"),
            source: error.into(),
        },
    })
}
