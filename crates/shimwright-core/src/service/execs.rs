//! Further processes of a task, its execs, and what each call does to them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api;
use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted, TaskExit};
use containerd_shim_protos::topics;
use oci_spec::runtime::Process;
use tokio::io::Interest;
use tokio::sync::{oneshot, watch};

use super::client::Wanted;
use super::io::{Io, StreamPaths};
use super::reply;
use super::tasks::{Task, exited};
use crate::config::bundle::validate_id;
use crate::config::identity::ProcessId;
use crate::container::join::{Join, Joined};
use crate::container::program::Programs;
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::process::launcher::Launcher;
use crate::service::state::{ExecState, Exited};
use crate::sys;

/// How long a process that has been told to go on may take to execute its program.
const EXECUTE_BOUND: Duration = Duration::from_secs(10);

/// One exec.
pub(super) struct Exec {
    pub(super) id: String,
    pub(super) io: Io,
    process: Process,
    state: watch::Sender<ExecState>,
    /// A handle on the process, once there is one.
    handle: OnceLock<OwnedFd>,
}

/// Shows of the process how many arguments it has and the names of its variables: the rest may be
/// secrets, and the state of a shim is written to the log.
impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = self.process.args().as_ref().map_or(0, Vec::len);
        let env = self.process.env().as_deref().unwrap_or_default();
        let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
        f.debug_struct("Exec")
            .field("id", &self.id)
            .field("io", &self.io)
            .field("args", &args)
            .field("env", &env.iter().map(name).collect::<Vec<_>>())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Exec {
    pub(super) fn state(&self) -> ExecState {
        *self.state.borrow()
    }

    /// Waits until the process has ended.
    pub(super) async fn exit(&self) -> Exited {
        exited(self.state.subscribe(), ExecState::exited).await
    }

    /// Sends a signal to the process.
    pub(super) fn kill(&self, signal: u32) -> Result<(), Error> {
        self.state().killable()?;
        let handle = self.handle.get().ok_or(Error::Finished)?;
        reply::send_signal(handle, signal)
    }

    fn change(
        &self,
        transition: impl FnOnce(&mut ExecState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        self.state.send_modify(|state| outcome = transition(state));
        outcome
    }

    fn stopped(&self, status: Status) -> Exited {
        let exited = Exited {
            status,
            at: SystemTime::now(),
        };
        self.state.send_modify(|state| state.stopped(exited));
        exited
    }
}

impl Task {
    /// Finds an exec.
    pub(super) fn exec(&self, exec: &str) -> Result<Arc<Exec>, Error> {
        let found = self.execs().get(exec).cloned();
        found.ok_or_else(|| Error::ExecNotFound {
            id: self.id.clone(),
            exec: exec.to_owned(),
        })
    }

    /// The execs whose processes run, by pid.
    pub(super) fn exec_pids(&self) -> HashMap<u32, String> {
        let running = |exec: &Arc<Exec>| Some(exec.state().killable().ok()?.pid.unsigned_abs());
        self.execs()
            .values()
            .filter_map(|exec| Some((running(exec)?, exec.id.clone())))
            .collect()
    }

    /// Takes note of a process to be started later.
    pub(super) fn add_exec(&self, request: &api::ExecProcessRequest) -> Result<(), Error> {
        validate_id("exec", &request.exec_id)?;
        self.state().joinable()?;
        let spec = request.spec.as_ref().map(|any| any.value.as_slice());
        let process: Process = serde_json::from_slice(spec.unwrap_or_default())
            .map_err(|error| Error::invalid(format!("the process of the exec: {error}")))?;
        let exec = Exec {
            id: request.exec_id.clone(),
            io: Io::new(StreamPaths {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            }),
            process,
            state: watch::Sender::new(ExecState::Added),
            handle: OnceLock::new(),
        };
        match self.execs().entry(exec.id.clone()) {
            Entry::Occupied(_) => {
                return Err(Error::ExecExists {
                    id: self.id.clone(),
                    exec: exec.id,
                });
            }
            Entry::Vacant(free) => free.insert(Arc::new(exec)),
        };
        let event = TaskExecAdded {
            container_id: self.id.clone(),
            exec_id: request.exec_id.clone(),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_EXEC_ADDED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Starts an exec and returns the pid of its process.
    pub(super) async fn start_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        wanted: &Wanted,
    ) -> Result<u32, Error> {
        // What joins a container that is being paused would be frozen half made.
        let _unchanged = self.changing.read().await;
        let init = self.state().joinable()?;
        exec.change(ExecState::starting)?;
        let (process, ended) = match self.join(exec, init, wanted).await {
            Ok(joined) => joined,
            Err(error) => {
                exec.stopped(Status::NOT_STARTED);
                exec.io.ended();
                return Err(error);
            }
        };
        exec.change(|state| state.started(process))?;
        let event = TaskExecStarted {
            container_id: self.id.clone(),
            exec_id: exec.id.clone(),
            pid: reply::pid(Some(process)),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_EXEC_STARTED_EVENT_TOPIC, &event);
        let (task, started) = (Arc::clone(self), Arc::clone(exec));
        tokio::spawn(async move {
            // The sender is dropped only if the reaper is, that is, with the shim.
            if let Ok(status) = ended.await {
                task.exec_ended(&started, process, status);
            }
        });
        Ok(reply::pid(Some(process)))
    }

    /// Forgets an exec that has ended or was never started, and says how it ended.
    pub(super) async fn delete_exec(
        &self,
        exec: &Exec,
    ) -> Result<(Option<ProcessId>, Option<Exited>), Error> {
        let state = exec.state();
        state.deletable()?;
        // From here on it can neither be found nor be started.
        self.execs().remove(&exec.id);
        exec.stopped(Status::from_code(0));
        exec.io.close(&exec.id).await;
        Ok((state.process(), state.exited()))
    }

    /// Waits until every exec that has been started has ended.
    pub(super) async fn execs_ended(&self) {
        let execs: Vec<_> = self.execs().values().cloned().collect();
        for exec in execs {
            if exec.state() != ExecState::Added {
                exec.exit().await;
            }
        }
    }

    /// Forgets every exec of a task that is being deleted.
    pub(super) async fn close_execs(&self) {
        let execs: Vec<_> = self.execs().drain().collect();
        for (id, exec) in execs {
            exec.stopped(Status::KILLED);
            exec.io.close(&id).await;
        }
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the process of an exec and has it execute its program.
    async fn join(
        &self,
        exec: &Exec,
        init: ProcessId,
        wanted: &Wanted,
    ) -> Result<(ProcessId, oneshot::Receiver<Status>), Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let socket = format!("exec-{}.sock", NUMBER.fetch_add(1, Ordering::Relaxed));
        let sandbox = self.sandbox()?;
        let (shared, bundle) = (&self.shared, &self.bundle);
        let (stdio, client) = self.open(&exec.io, &sandbox.options).await?;
        let notify = bundle.libcontainer().join(&self.id).join(&socket);
        let launching = shared.reaper.launching();
        let given = (stdio, &sandbox.init, &shared.alive.0, &shared.log, wanted);
        let launcher = Launcher::start(
            &shared.reaper,
            given,
            |(stdio, handle, alive, _, wanted)| {
                let shim_alive = alive.try_clone().context("duplicate a pipe")?;
                let wanted = wanted.try_clone()?;
                let join = Join {
                    programs: Programs {
                        host: shared.host,
                        id: &self.id,
                        options: &sandbox.options,
                        store: &shared.store,
                        overlay: &[],
                        shim_alive: Arc::new(shim_alive),
                        wanted: &wanted,
                    },
                    bundle,
                    kind: sandbox.kind,
                    cgroups: &sandbox.cgroups,
                    init,
                    handle,
                    process: exec.process.clone(),
                    notify: notify.clone(),
                };
                join.run(stdio)
            },
        )?;
        let answer = wanted.answer(launcher).await;
        let told = self.notify(&socket);
        // It has served its purpose, or there never was one.
        let _ = std::fs::remove_file(&notify);
        let Joined {
            process,
            handle,
            failure,
            master,
        } = answer?;
        let ended = launching.named(process.pid);
        let handle = exec.handle.get_or_init(|| handle.into());
        let executed = async {
            exec.io.connect(client, master.map(Into::into))?;
            told.context("start the process")?;
            let said = tokio::time::timeout(EXECUTE_BOUND, read_all(failure.into()));
            let said = said.await.context("execute the program")?;
            match said.context("hear from the process")?.as_str() {
                "" => Ok(()),
                reason => Err(Error::invalid(reason)),
            }
        };
        if let Err(error) = executed.await {
            let _ = sys::signal::pidfd_send_signal(handle, libc::SIGKILL);
            return Err(error);
        }
        Ok((process, ended))
    }

    fn exec_ended(&self, exec: &Exec, process: ProcessId, status: Status) {
        exec.io.ended();
        let exited = exec.stopped(status);
        let event = TaskExit {
            container_id: self.id.clone(),
            id: exec.id.clone(),
            pid: reply::pid(Some(process)),
            exit_status: status.into(),
            exited_at: reply::timestamp(exited.at),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_EXIT_EVENT_TOPIC, &event);
    }
}

/// Reads a pipe until its writers are gone: what it says is short.
async fn read_all(pipe: OwnedFd) -> std::io::Result<String> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let pipe = sys::fd::watch(pipe)?;
    let mut said = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        let read = pipe.async_io(Interest::READABLE, |pipe| {
            Ok(rustix::io::read(pipe, &mut chunk)?)
        });
        match read.await? {
            0 => return Ok(String::from_utf8_lossy(&said).into_owned()),
            length => said.extend_from_slice(&chunk[..length]),
        }
    }
}
