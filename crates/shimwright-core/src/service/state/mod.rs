//! The states of a process, of a task or of an exec: which transitions are legal, and which event
//! each of them publishes.
//!
//! Nothing here does input or output. A transition returns its event, so events have the order of
//! transitions. An illegal transition is an error that names the call and the state.

use std::time::SystemTime;

use containerd_shim_protos::api::CreateTaskRequest;

use super::event::Event;
use crate::config::identity::ProcessId;
use crate::engine::exit::Status;
use crate::error::Error;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exited {
    pub(super) status: Status,
    pub(super) at: SystemTime,
}

impl Exited {
    /// A process that has ended now.
    pub(super) fn now(status: Status) -> Self {
        Self {
            status,
            at: SystemTime::now(),
        }
    }
}

/// Names a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) container: String,
    /// The id of the exec; `None` for the first process.
    pub(super) exec: Option<String>,
}

impl Name {
    pub(super) fn task(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: None,
        }
    }

    pub(super) fn exec(container: &str, exec: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: Some(exec.to_owned()),
        }
    }

    /// The id of the exec, or that of the container.
    pub(super) fn id(&self) -> &str {
        self.exec.as_deref().unwrap_or(&self.container)
    }
}

/// The state of a process. Later states hold what is known only later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// An exec was added and not started yet.
    Added,
    /// The id is taken; the process is being made.
    Creating,
    /// The first process waits for `start`.
    Created { process: ProcessId },
    /// The process was started. It may have ended already; that is noticed later.
    Running { process: ProcessId },
    /// The processes of the container are being frozen.
    Pausing { process: ProcessId },
    /// Every process of the container is frozen.
    Paused { process: ProcessId },
    /// The process has ended, or was never made.
    Stopped {
        process: Option<ProcessId>,
        exited: Exited,
    },
}

/// The outcome of a transition: the event to publish, if there is one.
pub(super) type Transition = Result<Option<Event>, Error>;

/// What a state tells about its process.
impl State {
    fn name(self, of: &Name) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Creating if of.exec.is_some() => "being started",
            Self::Creating => "being created",
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Pausing { .. } => "being paused",
            Self::Paused { .. } => "paused",
            Self::Stopped { .. } => "stopped",
        }
    }

    fn refuse(self, of: &Name, action: &'static str) -> Error {
        Error::InvalidState {
            action,
            what: match of.exec {
                Some(_) => "an exec",
                None => "a task",
            },
            state: self.name(of),
        }
    }

    /// The process, once there is one; it stays known after its end.
    pub(super) fn process(self) -> Option<ProcessId> {
        match self {
            Self::Added | Self::Creating => None,
            Self::Created { process }
            | Self::Running { process }
            | Self::Pausing { process }
            | Self::Paused { process } => Some(process),
            Self::Stopped { process, .. } => process,
        }
    }

    /// How the process ended, if it has.
    pub(super) fn exited(self) -> Option<Exited> {
        match self {
            Self::Stopped { exited, .. } => Some(exited),
            _ => None,
        }
    }
}

/// Which calls a state allows.
impl State {
    /// Whether an exec may join the first process.
    pub(super) fn joinable(self, of: &Name) -> Result<ProcessId, Error> {
        match self {
            Self::Created { process } | Self::Running { process } => Ok(process),
            other => Err(other.refuse(of, "exec in")),
        }
    }

    /// Whether its terminal may be given another size.
    pub(super) fn resizable(self, of: &Name) -> Result<(), Error> {
        match self {
            Self::Stopped { .. } => Err(self.refuse(of, "resize")),
            _ => Ok(()),
        }
    }

    /// Whether the first process waits to be started.
    pub(super) fn startable(self, of: &Name) -> Result<ProcessId, Error> {
        match self {
            Self::Created { process } => Ok(process),
            other => Err(other.refuse(of, "start")),
        }
    }

    /// Whether the container can be resumed.
    pub(super) fn resumable(self, of: &Name) -> Result<(), Error> {
        match self {
            Self::Paused { .. } => Ok(()),
            other => Err(other.refuse(of, "resume")),
        }
    }

    /// Whether limits may be changed: there are processes that they apply to.
    pub(super) fn updatable(self, of: &Name) -> Result<(), Error> {
        match self {
            Self::Added | Self::Creating | Self::Stopped { .. } => Err(self.refuse(of, "update")),
            _ => Ok(()),
        }
    }

    /// Whether there is a process that can be sent a signal.
    pub(super) fn killable(self, of: &Name) -> Result<ProcessId, Error> {
        match self {
            Self::Created { process }
            | Self::Running { process }
            | Self::Pausing { process }
            | Self::Paused { process } => Ok(process),
            Self::Stopped { .. } => Err(Error::Finished),
            Self::Added | Self::Creating => Err(self.refuse(of, "kill")),
        }
    }

    /// Whether the process may be deleted, and whether it has to be ended for that.
    pub(super) fn deletable(self, of: &Name) -> Result<Deletable, Error> {
        match self {
            Self::Created { .. } => Ok(Deletable::AfterKill),
            Self::Added | Self::Stopped { .. } => Ok(Deletable::Now),
            _ => Err(self.refuse(of, "delete")),
        }
    }
}

/// The transitions.
impl State {
    /// The process of an exec is being made. From here on a second start is refused.
    pub(super) fn creating(&mut self, of: &Name) -> Transition {
        match *self {
            Self::Added => {
                *self = Self::Creating;
                Ok(None)
            }
            other => Err(other.refuse(of, "start")),
        }
    }

    /// The container exists, and its first process waits for `start`.
    pub(super) fn created(
        &mut self,
        of: &Name,
        process: ProcessId,
        request: &CreateTaskRequest,
    ) -> Transition {
        match *self {
            Self::Creating => {
                *self = Self::Created { process };
                Ok(Some(Event::created(request, process)))
            }
            other => Err(other.refuse(of, "create")),
        }
    }

    /// The first process has been told to go on.
    pub(super) fn started(&mut self, of: &Name) -> Transition {
        let process = self.startable(of)?;
        *self = Self::Running { process };
        Ok(Some(Event::started(&of.container, process)))
    }

    /// The process of an exec runs.
    pub(super) fn joined(&mut self, of: &Name, process: ProcessId) -> Transition {
        match *self {
            Self::Creating => {
                *self = Self::Running { process };
                Ok(Some(Event::exec_started(&of.container, of.id(), process)))
            }
            other => Err(other.refuse(of, "start")),
        }
    }

    /// Freezing begins.
    pub(super) fn pausing(&mut self, of: &Name) -> Transition {
        match *self {
            Self::Running { process } => {
                *self = Self::Pausing { process };
                Ok(None)
            }
            other => Err(other.refuse(of, "pause")),
        }
    }

    /// Everything is frozen, unless it was [thawed](Self::thawed) or has ended meanwhile.
    pub(super) fn paused(&mut self, of: &Name) -> Transition {
        match *self {
            Self::Pausing { process } => {
                *self = Self::Paused { process };
                Ok(Some(Event::paused(&of.container)))
            }
            other => Err(other.refuse(of, "pause")),
        }
    }

    /// The container was thawed by a call.
    pub(super) fn resumed(&mut self, of: &Name) -> Transition {
        self.resumable(of)?;
        self.thawed();
        Ok(Some(Event::resumed(&of.container)))
    }

    /// The container was thawed so that it can end: no event. Returns whether it was frozen, or
    /// about to be.
    pub(super) fn thawed(&mut self) -> bool {
        match *self {
            Self::Pausing { process } | Self::Paused { process } => {
                *self = Self::Running { process };
                true
            }
            _ => false,
        }
    }

    /// The process has ended, or will never be made. Only the first end counts. An event is
    /// published only if there was a process.
    pub(super) fn stopped(&mut self, of: &Name, exited: Exited) -> Transition {
        if self.exited().is_some() {
            return Ok(None);
        }
        let process = self.process();
        *self = Self::Stopped { process, exited };
        Ok(process.map(|process| Event::exited(&of.container, of.id(), process, exited)))
    }

    /// Nothing of the container is left.
    pub(super) fn deleted(self, of: &Name) -> Transition {
        match self {
            Self::Stopped {
                process: Some(process),
                exited,
            } => Ok(Some(Event::deleted(&of.container, process, exited))),
            other => Err(other.refuse(of, "delete")),
        }
    }
}

/// What deleting a process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletable {
    /// It has ended, or there was none.
    Now,
    /// It was never started, and still waits.
    AfterKill,
}

#[cfg(test)]
mod tests;
