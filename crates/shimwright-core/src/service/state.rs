//! A task: what may happen to it in which state, and what containerd is told then.
//!
//! Nothing here does input or output. A transition returns what to publish; an illegal one is an
//! error that names both the call and the state.

use std::time::SystemTime;

use crate::config::identity::ProcessId;
use crate::engine::exit::Status;
use crate::error::Error;

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
    Created { init: ProcessId },
    /// The guest runs.
    Running { init: ProcessId },
    /// Its processes are being frozen.
    Pausing { init: ProcessId },
    /// Every process is frozen.
    Paused { init: ProcessId },
    /// The first process has ended.
    Stopped { init: ProcessId, exited: Exited },
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Creating => "being created",
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Pausing { .. } => "being paused",
            Self::Paused { .. } => "paused",
            Self::Stopped { .. } => "stopped",
        }
    }

    fn refuse(self, action: &'static str) -> Error {
        Error::InvalidState {
            action,
            what: "a task",
            state: self.name(),
        }
    }

    /// The first process, once there is one; it stays known after its end.
    pub(crate) fn init(self) -> Option<ProcessId> {
        match self {
            Self::Creating => None,
            Self::Created { init }
            | Self::Running { init }
            | Self::Pausing { init }
            | Self::Paused { init }
            | Self::Stopped { init, .. } => Some(init),
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
    pub(crate) fn created(&mut self, init: ProcessId) -> Result<(), Error> {
        match *self {
            Self::Creating => {
                *self = Self::Created { init };
                Ok(())
            }
            other => Err(other.refuse("create")),
        }
    }

    /// Whether a further process may join the first.
    pub(crate) fn joinable(self) -> Result<ProcessId, Error> {
        match self {
            Self::Created { init } | Self::Running { init } => Ok(init),
            other => Err(other.refuse("exec in")),
        }
    }

    /// Whether its terminal may be given another size.
    pub(crate) fn resizable(self) -> Result<(), Error> {
        match self {
            Self::Stopped { .. } => Err(self.refuse("resize")),
            _ => Ok(()),
        }
    }

    /// Whether the guest may be started: the first process waits for it.
    pub(crate) fn startable(self) -> Result<ProcessId, Error> {
        match self {
            Self::Created { init } => Ok(init),
            other => Err(other.refuse("start")),
        }
    }

    /// The guest has been started.
    pub(crate) fn started(&mut self) -> Result<ProcessId, Error> {
        let init = self.startable()?;
        *self = Self::Running { init };
        Ok(init)
    }

    /// Freezing begins.
    pub(crate) fn pausing(&mut self) -> Result<(), Error> {
        match *self {
            Self::Running { init } => {
                *self = Self::Pausing { init };
                Ok(())
            }
            other => Err(other.refuse("pause")),
        }
    }

    /// Everything is frozen, unless the task was [thawed](Self::thawed) or has ended meanwhile.
    pub(crate) fn paused(&mut self) -> Result<(), Error> {
        match *self {
            Self::Pausing { init } => {
                *self = Self::Paused { init };
                Ok(())
            }
            other => Err(other.refuse("pause")),
        }
    }

    /// Whether the task can be resumed.
    pub(crate) fn resumable(self) -> Result<(), Error> {
        match self {
            Self::Paused { .. } => Ok(()),
            other => Err(other.refuse("resume")),
        }
    }

    /// The task is frozen no more, nor about to be. Whether that changes anything.
    pub(crate) fn thawed(&mut self) -> bool {
        match *self {
            Self::Pausing { init } | Self::Paused { init } => {
                *self = Self::Running { init };
                true
            }
            _ => false,
        }
    }

    /// Whether limits may be changed: there are processes that they apply to.
    pub(crate) fn updatable(self) -> Result<(), Error> {
        match self {
            Self::Creating | Self::Stopped { .. } => Err(self.refuse("update")),
            _ => Ok(()),
        }
    }

    /// The first process has ended. Returns the process if that was not known yet.
    pub(crate) fn stopped(&mut self, exited: Exited) -> Option<ProcessId> {
        match *self {
            Self::Created { init }
            | Self::Running { init }
            | Self::Pausing { init }
            | Self::Paused { init } => {
                *self = Self::Stopped { init, exited };
                Some(init)
            }
            Self::Creating | Self::Stopped { .. } => None,
        }
    }

    /// Whether there is a process that can be sent a signal.
    pub(crate) fn killable(self) -> Result<ProcessId, Error> {
        match self {
            Self::Created { init }
            | Self::Running { init }
            | Self::Pausing { init }
            | Self::Paused { init } => Ok(init),
            Self::Stopped { .. } => Err(Error::Finished),
            Self::Creating => Err(self.refuse("kill")),
        }
    }

    /// Whether the task may be deleted, and whether its process has to be ended for that.
    pub(crate) fn deletable(self) -> Result<Deletable, Error> {
        match self {
            Self::Created { .. } => Ok(Deletable::AfterKill),
            Self::Stopped { .. } => Ok(Deletable::Now),
            Self::Creating | Self::Running { .. } | Self::Pausing { .. } | Self::Paused { .. } => {
                Err(self.refuse("delete"))
            }
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

/// Where a further process of a task, an exec, is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecState {
    /// It is known what to run; there is no process yet.
    Added,
    /// The process is being made.
    Starting,
    /// The process runs.
    Running { process: ProcessId },
    /// The process has ended, or there is none because it could not be made.
    Stopped {
        process: Option<ProcessId>,
        exited: Exited,
    },
}

impl ExecState {
    fn refuse(self, action: &'static str) -> Error {
        Error::InvalidState {
            action,
            what: "an exec",
            state: match self {
                Self::Added => "added",
                Self::Starting => "being started",
                Self::Running { .. } => "running",
                Self::Stopped { .. } => "stopped",
            },
        }
    }

    /// The process, once there is one; it stays known after its end.
    pub(crate) fn process(self) -> Option<ProcessId> {
        match self {
            Self::Added | Self::Starting => None,
            Self::Running { process } => Some(process),
            Self::Stopped { process, .. } => process,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exited(self) -> Option<Exited> {
        match self {
            Self::Stopped { exited, .. } => Some(exited),
            _ => None,
        }
    }

    /// Nobody else may start it from here on.
    pub(crate) fn starting(&mut self) -> Result<(), Error> {
        match *self {
            Self::Added => {
                *self = Self::Starting;
                Ok(())
            }
            other => Err(other.refuse("start")),
        }
    }

    /// The process runs. It may have ended already, which is noticed later.
    pub(crate) fn started(&mut self, process: ProcessId) -> Result<(), Error> {
        match *self {
            Self::Starting => {
                *self = Self::Running { process };
                Ok(())
            }
            other => Err(other.refuse("start")),
        }
    }

    /// The process has ended, or will never be.
    pub(crate) fn stopped(&mut self, exited: Exited) {
        if self.exited().is_none() {
            *self = Self::Stopped {
                process: self.process(),
                exited,
            };
        }
    }

    /// Whether there is a process that can be sent a signal.
    pub(crate) fn killable(self) -> Result<ProcessId, Error> {
        match self {
            Self::Running { process } => Ok(process),
            Self::Stopped { .. } => Err(Error::Finished),
            Self::Added | Self::Starting => Err(self.refuse("kill")),
        }
    }

    /// Whether its terminal may be given another size.
    pub(crate) fn resizable(self) -> Result<(), Error> {
        match self {
            Self::Stopped { .. } => Err(self.refuse("resize")),
            _ => Ok(()),
        }
    }

    /// Whether it may be forgotten.
    pub(crate) fn deletable(self) -> Result<(), Error> {
        match self {
            Self::Added | Self::Stopped { .. } => Ok(()),
            Self::Starting | Self::Running { .. } => Err(self.refuse("delete")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() -> ProcessId {
        ProcessId::of(rustix::process::getpid()).unwrap()
    }

    fn exited() -> Exited {
        Exited {
            status: Status::from_code(3),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn all() -> [State; 6] {
        let init = init();
        [
            State::Creating,
            State::Created { init },
            State::Running { init },
            State::Pausing { init },
            State::Paused { init },
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
                state.updatable().is_ok(),
                state.resumable().is_ok(),
                state.joinable().is_ok(),
            )
        });
        let expected = [
            ("being created", false, false, false, false, false, false),
            ("created", true, true, true, true, false, true),
            ("running", false, true, false, true, false, true),
            ("being paused", false, true, false, true, false, false),
            ("paused", false, true, false, true, true, false),
            ("stopped", false, false, true, false, false, false),
        ];
        assert_eq!(table, expected);
    }

    #[test]
    fn each_call_is_allowed_in_an_execs_states_only() {
        let process = init();
        let table = [
            ExecState::Added,
            ExecState::Starting,
            ExecState::Running { process },
            ExecState::Stopped {
                process: Some(process),
                exited: exited(),
            },
        ]
        .map(|mut state| {
            (
                state.killable().is_ok(),
                state.deletable().is_ok(),
                state.starting().is_ok(),
            )
        });
        let expected = [
            (false, true, true),
            (false, false, false),
            (true, false, false),
            (false, true, false),
        ];
        assert_eq!(table, expected);
    }

    #[test]
    fn an_exec_that_could_not_be_started_has_ended_without_a_process() {
        let mut state = ExecState::Added;
        state.starting().unwrap();
        state.stopped(exited());
        assert_eq!((state.process(), state.exited()), (None, Some(exited())));
        assert!(matches!(state.killable(), Err(Error::Finished)));
        state.deletable().unwrap();
    }

    #[test]
    fn only_a_running_task_is_paused_and_only_while_nothing_interferes() {
        let outcomes = all().map(|mut state| (state.pausing().is_ok(), state.paused().is_ok()));
        let expected = [
            (false, false),
            (false, false),
            (true, true),
            (false, true),
            (false, false),
            (false, false),
        ];
        assert_eq!(outcomes, expected);
        let mut killed = State::Pausing { init: init() };
        assert!(killed.thawed());
        assert_eq!(killed, State::Running { init: init() });
        let error = killed.paused().unwrap_err();
        assert_eq!(error.to_string(), "cannot pause a task that is running");
    }

    #[test]
    fn thawing_concerns_what_is_frozen() {
        let thawed = all().map(|mut state| state.thawed());
        assert_eq!(thawed, [false, false, false, true, true, false]);
    }

    #[test]
    fn an_exit_is_noticed_once_and_in_any_state_with_a_process() {
        let noticed = all().map(|mut state| state.stopped(exited()).is_some());
        assert_eq!(noticed, [false, true, true, true, true, false]);
    }

    #[test]
    fn a_refusal_names_the_call_and_the_state() {
        let error = State::Running { init: init() }.startable().unwrap_err();
        assert_eq!(error.to_string(), "cannot start a task that is running");
        assert!(matches!(all()[5].killable(), Err(Error::Finished)));
    }

    #[test]
    fn a_task_that_was_never_started_is_killed_to_be_deleted() {
        assert_eq!(all()[1].deletable().unwrap(), Deletable::AfterKill);
        assert_eq!(all()[5].deletable().unwrap(), Deletable::Now);
    }
}
