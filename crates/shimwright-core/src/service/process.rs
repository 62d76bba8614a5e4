//! A process of a container, its first one or an exec: both are signalled, waited for and described
//! in the same way.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::events::Events;
use super::io::{Io, StreamPaths};
use super::state::{Exited, Name, State, Transition};
use crate::engine::exit::Status;
use crate::error::Error;
use crate::sys;

/// One process, from the moment its id is taken.
pub(super) struct Process {
    pub(super) name: Name,
    pub(super) io: Io,
    state: watch::Sender<State>,
    /// A handle on the process, once there is one: it cannot come to mean another one.
    handle: OnceLock<OwnedFd>,
    events: Arc<Events>,
}

/// Leaves out the events, which are those of all processes.
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
            name,
            io: Io::new(paths),
            state: watch::Sender::new(state),
            handle: OnceLock::new(),
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

    /// Makes a transition and publishes its event. Nothing comes in between: there is one thread,
    /// and no point where it waits.
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

    /// Takes note that it is frozen no more, of which nobody is told.
    pub(super) fn thawed(&self) {
        self.state.send_if_modified(State::thawed);
    }

    /// Takes note of the end, or that there will be no process. The first end counts.
    pub(super) fn stopped(&self, exited: Exited) {
        // It is legal in every state.
        let _ = self.change(|state, name| state.stopped(name, exited));
    }

    /// The process has ended: what it wrote is still to be read.
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

    /// The process has been made. Nobody else sets the handle: a process is made once.
    pub(super) fn made(&self, handle: OwnedFd) -> &OwnedFd {
        self.handle.get_or_init(|| handle)
    }

    /// A handle on the process.
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

/// Sends a signal to the process behind a handle.
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
