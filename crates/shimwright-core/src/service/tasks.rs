//! The tasks of this shim, by id, and what each call does to them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskRequest;

use super::client::Wanted;
use super::events::Events;
use super::exec::Exec;
use super::log::Log;
use super::process::Process;
use super::reply;
use super::state::{Exited, State};
use super::task::Task;
use crate::cgroup::Hierarchies;
use crate::code::content::Store;
use crate::config::bundle::validate_id;
use crate::config::identity::ProcessId;
use crate::config::options::RuntimeOptions;
use crate::error::Error;
use crate::process::reaper::Reaper;
use crate::runner::host::Host;

/// How long killed tasks may take to end when the shim is told to end.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// What is called with the id of a container that is gone.
pub(crate) struct Released(pub(crate) Box<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Released(..)")
    }
}

/// What all tasks of a shim process have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: &'static Host,
    pub(crate) events: Arc<Events>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) store: Store,
    /// The log, which launchers write to as well.
    pub(crate) log: Option<Log>,
    /// Told the id of each container that is gone, if all containers of a node share the process.
    pub(crate) released: Option<Released>,
    /// Both ends of a pipe: every container holds the read end, this process alone the write end.
    pub(crate) alive: (OwnedFd, OwnedFd),
}

/// All tasks by id.
#[derive(Debug)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
    tasks: Mutex<HashMap<String, Arc<Task>>>,
}

/// The process that a call is about: an exec of a task, or its first process.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) task: Arc<Task>,
    pub(super) exec: Option<Arc<Exec>>,
}

impl Tasks {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            tasks: Mutex::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether there is no task but those that are being created.
    pub(super) fn none_created(&self) -> bool {
        self.lock().values().all(|task| is_being_created(task))
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Finds a task that has been created.
    pub(super) fn find(&self, id: &str) -> Result<Arc<Task>, Error> {
        let found = self.lock().get(id).cloned();
        // While it is being created there is nothing to see yet.
        found
            .filter(|task| !is_being_created(task))
            .ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    /// Finds a process: an empty `exec` is the first one.
    pub(super) fn target(&self, id: &str, exec: &str) -> Result<Target, Error> {
        let task = self.find(id)?;
        let exec = match exec {
            "" => None,
            exec => Some(task.exec(exec)?),
        };
        Ok(Target { task, exec })
    }

    /// Creates a task and returns the pid of its first process.
    pub(super) async fn create(
        &self,
        request: CreateTaskRequest,
        wanted: Wanted,
    ) -> Result<u32, Error> {
        validate_id("container", &request.id)?;
        if !request.checkpoint.is_empty() {
            return Err(Error::NotSupported {
                operation: "restoring a checkpoint".to_owned(),
            });
        }
        let options = RuntimeOptions::decode(request.options.as_ref())?;
        let task = self.reserve(&request, &wanted)?;
        let created = task.create(&request, options, &wanted).await;
        if created.is_err() {
            task.process.io.stop_loggers().await;
            self.remove(&task);
        }
        created
    }

    /// Waits for the end of every create that nobody waits for, and of that of this task, which is
    /// given up: containerd asks for its end, so it has no use for it any more. Its client may have
    /// gone without a word, since ttrpc has none for that.
    pub(super) async fn give_up(&self, id: &str) {
        let outcomes: Vec<_> = {
            let tasks = self.lock();
            let creating = tasks.values().filter(|task| is_being_created(task));
            let given_up = creating.filter(|task| {
                if task.id() == id {
                    task.creator.give_up();
                }
                task.creator.has_gone()
            });
            given_up.map(|task| task.process.subscribe()).collect()
        };
        for mut outcome in outcomes {
            // An error says that the task is gone.
            let _ = outcome.wait_for(|state| *state != State::Creating).await;
        }
    }

    /// Containerd has asked the shim to end, now that this container is gone.
    pub(super) fn release(&self, id: &str) {
        if let Some(Released(released)) = &self.shared.released {
            released(id);
        }
    }

    /// Takes the id, before anything else is done for the request.
    fn reserve(&self, request: &CreateTaskRequest, wanted: &Wanted) -> Result<Arc<Task>, Error> {
        match self.lock().entry(request.id.clone()) {
            Entry::Occupied(_) => Err(Error::AlreadyExists {
                id: request.id.clone(),
            }),
            Entry::Vacant(free) => {
                let task = Arc::new(Task::new(request, wanted.caller(), &self.shared));
                Ok(Arc::clone(free.insert(task)))
            }
        }
    }

    /// Forgets a task. If the log is in its bundle, it moves to that of another one.
    fn remove(&self, task: &Task) {
        let mut tasks = self.lock();
        tasks.remove(task.id());
        let directory = task.bundle.directory();
        if let Some(log) = self.shared.log.as_ref().filter(|log| log.is_of(directory))
            && let Some(other) = tasks.values().next()
        {
            log.move_to(other.bundle.directory());
        }
    }

    /// Starts a process and returns its pid.
    pub(super) async fn start(&self, target: Target, wanted: Wanted) -> Result<u32, Error> {
        let task = target.task;
        if let Some(exec) = target.exec {
            return task.start_exec(&exec, &wanted).await;
        }
        let _changing = task.changing.write().await;
        task.start()?;
        task.run_poststart_hooks(&wanted).await?;
        Ok(reply::pid(task.process.state().process()))
    }

    /// Removes a process that has ended or was never started, and says how it ended; an exec that
    /// was never started has not.
    pub(super) async fn delete(
        &self,
        target: Target,
    ) -> Result<(Option<ProcessId>, Option<Exited>), Error> {
        let task = target.task;
        if let Some(exec) = target.exec {
            return task.delete_exec(&exec).await;
        }
        let _changing = task.changing.write().await;
        // Another call may have deleted it while this one waited.
        self.find(task.id())?;
        task.delete().await?;
        self.remove(&task);
        let state = task.process.state();
        Ok((state.process(), state.exited()))
    }

    /// Kills every task and waits until each has ended, within a bound.
    pub(super) async fn kill_all(&self) {
        let tasks: Vec<_> = self.lock().values().cloned().collect();
        for task in &tasks {
            // One that has ended, or has no process yet, needs no signal.
            let _ = task.kill(libc::SIGKILL.unsigned_abs(), true);
        }
        let ended = async {
            for task in tasks.iter().filter(|task| !is_being_created(task)) {
                task.process.exit().await;
            }
        };
        if tokio::time::timeout(KILL_BOUND, ended).await.is_err() {
            tracing::warn!("some tasks do not end");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_being_created(task: &Task) -> bool {
    task.process.state() == State::Creating
}

impl Target {
    pub(super) fn process(&self) -> &Process {
        match &self.exec {
            Some(exec) => &exec.process,
            None => &self.task.process,
        }
    }

    /// Sends a signal to the process or, if that is the first one, to all of the container.
    pub(super) fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        match &self.exec {
            Some(exec) => exec.process.kill(signal),
            None => self.task.kill(signal, all),
        }
    }
}
