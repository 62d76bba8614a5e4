//! A task: what may happen to it in which state, and what containerd is told then.
//!
//! Nothing here does input or output. A transition returns what to publish; an illegal one is an
//! error that names both the call and the state.

use std::time::SystemTime;

use crate::bundle::Init;
use crate::error::Error;
use crate::exit::Status;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exited {
    pub(crate) status: Status,
    pub(crate) at: SystemTime,
}

/// Where a task is in its life. What is known only later lives in the later states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The id is taken; there is no process yet.
    Creating,
    /// The first process waits for `start`.
    Created { init: Init },
    /// The guest runs.
    Running { init: Init },
    /// The first process has ended.
    Stopped { init: Init, exited: Exited },
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Stopped { .. } => "stopped",
        }
    }

    fn refuse(self, action: &'static str) -> Error {
        Error::InvalidState {
            action,
            state: self.name(),
        }
    }

    /// The first process, once there is one; it stays known after its end.
    pub(crate) fn init(self) -> Option<Init> {
        match self {
            Self::Creating => None,
            Self::Created { init } | Self::Running { init } | Self::Stopped { init, .. } => {
                Some(init)
            }
        }
    }

    /// How the task ended, if it has.
    pub(crate) fn exited(self) -> Option<Exited> {
        match self {
            Self::Stopped { exited, .. } => Some(exited),
            _ => None,
        }
    }

    /// The sandbox is built.
    pub(crate) fn created(&mut self, init: Init) -> Result<(), Error> {
        match *self {
            Self::Creating => {
                *self = Self::Created { init };
                Ok(())
            }
            other => Err(other.refuse("create")),
        }
    }

    /// Whether the guest may be started: the first process waits for it.
    pub(crate) fn startable(self) -> Result<Init, Error> {
        match self {
            Self::Created { init } => Ok(init),
            other => Err(other.refuse("start")),
        }
    }

    /// The guest has been started.
    pub(crate) fn started(&mut self) -> Result<Init, Error> {
        let init = self.startable()?;
        *self = Self::Running { init };
        Ok(init)
    }

    /// The first process has ended. Returns the process if that was not known yet.
    pub(crate) fn stopped(&mut self, exited: Exited) -> Option<Init> {
        match *self {
            Self::Created { init } | Self::Running { init } => {
                *self = Self::Stopped { init, exited };
                Some(init)
            }
            Self::Creating | Self::Stopped { .. } => None,
        }
    }

    /// Whether there is a process that can be sent a signal.
    pub(crate) fn killable(self) -> Result<Init, Error> {
        match self {
            Self::Created { init } | Self::Running { init } => Ok(init),
            Self::Stopped { .. } => Err(Error::Finished),
            Self::Creating => Err(self.refuse("kill")),
        }
    }

    /// Whether the task may be deleted, and whether its process has to be ended for that.
    pub(crate) fn deletable(self) -> Result<Deletable, Error> {
        match self {
            Self::Created { .. } => Ok(Deletable::AfterKill),
            Self::Stopped { .. } => Ok(Deletable::Now),
            Self::Creating | Self::Running { .. } => Err(self.refuse("delete")),
        }
    }
}

/// What deleting a task takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletable {
    /// It has ended.
    Now,
    /// It was never started, and its process still waits.
    AfterKill,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() -> Init {
        Init::of(rustix::process::getpid()).unwrap()
    }

    fn exited() -> Exited {
        Exited {
            status: Status::from_code(3),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn all() -> [State; 4] {
        let init = init();
        [
            State::Creating,
            State::Created { init },
            State::Running { init },
            State::Stopped {
                init,
                exited: exited(),
            },
        ]
    }

    #[test]
    fn each_call_is_allowed_in_its_states_only() {
        let table = all().map(|state| {
            (
                state.name(),
                state.startable().is_ok(),
                state.killable().is_ok(),
                state.deletable().is_ok(),
            )
        });
        let expected = [
            ("being created", false, false, false),
            ("created", true, true, true),
            ("running", false, true, false),
            ("stopped", false, false, true),
        ];
        assert_eq!(table, expected);
    }

    #[test]
    fn an_exit_is_noticed_once_and_in_any_state_with_a_process() {
        let noticed = all().map(|mut state| state.stopped(exited()).is_some());
        assert_eq!(noticed, [false, true, true, false]);
    }

    #[test]
    fn a_refusal_names_the_call_and_the_state() {
        let error = State::Running { init: init() }.startable().unwrap_err();
        assert_eq!(error.to_string(), "cannot start a task that is running");
        assert!(matches!(all()[3].killable(), Err(Error::Finished)));
    }

    #[test]
    fn a_task_that_was_never_started_is_killed_to_be_deleted() {
        assert_eq!(all()[1].deletable().unwrap(), Deletable::AfterKill);
        assert_eq!(all()[3].deletable().unwrap(), Deletable::Now);
    }
}
