//! Further processes of a task, its execs, and what each call does to them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use containerd_shim_protos::api::ExecProcessRequest;
use oci_spec::runtime::Process as Spec;
use tokio::io::Interest;
use tokio::sync::oneshot;

use super::client::{Caller, Wanted};
use super::event::Event;
use super::io::{Pending, StreamPaths};
use super::process::{Process, send_signal};
use super::reply;
use super::state::{Exited, Name, State};
use super::task::{Sandbox, Task};
use crate::config::bundle::validate_id;
use crate::config::identity::ProcessId;
use crate::config::spec;
use crate::container::join::{Join, Joined};
use crate::container::program::Programs;
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::process::launcher::Launcher;
use crate::stdio::Stdio;
use crate::sys;

/// How long a process that has been told to go on may take to execute its program.
const EXECUTE_BOUND: Duration = Duration::from_secs(10);

/// One exec.
pub(super) struct Exec {
    pub(super) process: Process,
    spec: Spec,
    /// Who has it started, once somebody has.
    starter: OnceLock<Caller>,
}

/// Shows of the spec how many arguments it has and the names of its variables: the rest may be
/// secrets, and the state of a shim is written to the log.
impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = self.spec.args().as_ref().map_or(0, Vec::len);
        let env = self.spec.env().as_deref().unwrap_or_default();
        let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
        f.debug_struct("Exec")
            .field("process", &self.process)
            .field("args", &args)
            .field("env", &env.iter().map(name).collect::<Vec<_>>())
            .finish()
    }
}

impl Task {
    /// Finds an exec.
    pub(super) fn exec(&self, exec: &str) -> Result<Arc<Exec>, Error> {
        let found = self.execs().get(exec).cloned();
        found.ok_or_else(|| Error::ExecNotFound {
            id: self.id().to_owned(),
            exec: exec.to_owned(),
        })
    }

    /// The execs whose processes run, by pid.
    pub(super) fn exec_pids(&self) -> HashMap<u32, String> {
        let running = |process: &Process| {
            let killable = process.state().killable(&process.name);
            Some((reply::pid(Some(killable.ok()?)), process.id().to_owned()))
        };
        self.execs()
            .values()
            .filter_map(|exec| running(&exec.process))
            .collect()
    }

    /// Takes note of a process to be started later.
    pub(super) fn add_exec(&self, request: &ExecProcessRequest) -> Result<(), Error> {
        validate_id("exec", &request.exec_id)?;
        self.process.state().joinable(&self.process.name)?;
        let spec = request.spec.as_ref().map(|any| any.value.as_slice());
        let mut spec: Spec = spec::parse_process(spec.unwrap_or_default())
            .map_err(|error| Error::invalid(format!("the process of the exec: {error}")))?;
        // The request decides, as in containerd's own shim (`Init.exec` in `pkg/process/init.go`
        // there): clients leave the terminal of the spec as it is in the container's.
        spec.set_terminal(Some(request.terminal));
        let paths = StreamPaths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let name = Name::exec(self.id(), &request.exec_id);
        let event = Event::exec_added(self.id(), &request.exec_id);
        match self.execs().entry(request.exec_id.clone()) {
            Entry::Occupied(_) => {
                return Err(Error::ExecExists {
                    id: self.id().to_owned(),
                    exec: request.exec_id.clone(),
                });
            }
            Entry::Vacant(free) => free.insert(Arc::new(Exec {
                process: Process::new(name, paths, State::Added, &self.shared.events),
                spec,
                starter: OnceLock::new(),
            })),
        };
        self.shared.events.publish(&event);
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
        let init = self.process.state().joinable(&self.process.name)?;
        exec.process.change(State::creating)?;
        // That can be done once only.
        let _ = exec.starter.set(wanted.caller());
        let (process, ended) = match self.join(exec, init, wanted).await {
            Ok(joined) => joined,
            Err(error) => {
                exec.process.ended(Exited::now(Status::NOT_STARTED));
                return Err(error);
            }
        };
        exec.process
            .change(|state, name| state.joined(name, process))?;
        let started = Arc::clone(exec);
        tokio::spawn(async move {
            // The sender is dropped only if the reaper is, that is, with the shim.
            if let Ok(status) = ended.await {
                started.process.ended(Exited::now(status));
            }
        });
        Ok(reply::pid(Some(process)))
    }

    /// Waits for the end of an exec that is being started, which is given up: whoever asks for its
    /// end has no use for it any more.
    pub(super) async fn give_up_exec(&self, exec: &str) {
        let Ok(exec) = self.exec(exec) else {
            return;
        };
        if exec.process.state() == State::Creating {
            exec.starter.get().into_iter().for_each(Caller::give_up);
            let mut outcome = exec.process.subscribe();
            let _ = outcome.wait_for(|state| *state != State::Creating).await;
        }
    }

    /// Forgets an exec that has ended or was never started, and says how it ended.
    pub(super) async fn delete_exec(
        &self,
        exec: &Exec,
    ) -> Result<(Option<ProcessId>, Option<Exited>), Error> {
        let state = exec.process.state();
        state.deletable(&exec.process.name)?;
        // From here on it can neither be found nor be started.
        self.execs().remove(exec.process.id());
        exec.process.stopped(Exited::now(Status::from_code(0)));
        exec.process.io.close(exec.process.id()).await;
        Ok((state.process(), state.exited()))
    }

    /// Waits until every exec that has been started has ended.
    pub(super) async fn execs_ended(&self) {
        let execs: Vec<_> = self.execs().values().cloned().collect();
        for exec in execs {
            if exec.process.state() != State::Added {
                exec.process.exit().await;
            }
        }
    }

    /// Forgets every exec of a task that is being deleted.
    pub(super) async fn close_execs(&self) {
        let execs: Vec<_> = self.execs().drain().collect();
        // Each may wait for its client.
        let closed = execs.iter().map(|(id, exec)| {
            exec.process.stopped(Exited::now(Status::KILLED));
            exec.process.io.close(id)
        });
        futures::future::join_all(closed).await;
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
        let sandbox = self.sandbox()?;
        let opening = self.open(&exec.process.io, &sandbox.options);
        let (stdio, client) = wanted.unless_over(opening).await?;
        let launching = self.shared.reaper.launching();
        let launcher = self.launch_join(exec, init, stdio, wanted)?;
        let Joined {
            process,
            handle,
            start,
            failure,
            master,
        } = wanted.answer(launcher).await?;
        let ended = launching.named(process.pid);
        let handle = exec.process.made(handle.into(), start.into());
        let executed = exec.execute(client, master.map(Into::into), failure.into());
        let outcome = match executed.await {
            Ok(()) if wanted.is_over() => Err(Error::invalid("the client has gone")),
            outcome => outcome,
        };
        if let Err(error) = outcome {
            // It may have ended by itself.
            let _ = send_signal(handle, libc::SIGKILL.unsigned_abs());
            return Err(error);
        }
        Ok((process, ended))
    }

    /// Starts the launcher that makes the process of an exec, which waits.
    fn launch_join(
        &self,
        exec: &Exec,
        init: ProcessId,
        stdio: Stdio,
        wanted: &Wanted,
    ) -> Result<Launcher<Joined>, Error> {
        let Sandbox {
            cgroups,
            kind,
            options,
            ..
        } = self.sandbox()?;
        let shared = &self.shared;
        let handle = self.process.handle()?;
        let given = (stdio, handle, &shared.alive.0, &shared.log, wanted);
        Launcher::start(
            &shared.reaper,
            given,
            |(stdio, handle, alive, _, wanted)| {
                let shim_alive = alive.try_clone().context("duplicate a pipe")?;
                let wanted = wanted.try_clone()?;
                let join = Join {
                    programs: Programs {
                        host: shared.host,
                        id: self.id(),
                        options,
                        store: &shared.store,
                        overlay: &[],
                        shim_alive: Arc::new(shim_alive),
                        wanted: &wanted,
                    },
                    bundle: &self.bundle,
                    kind: *kind,
                    cgroups,
                    init,
                    handle,
                    process: exec.spec.clone(),
                };
                join.run(stdio)
            },
        )
    }
}

impl Exec {
    /// Connects the streams of a process that was told to go on, and waits until it has executed
    /// its program.
    async fn execute(
        &self,
        client: Pending,
        master: Option<OwnedFd>,
        failure: OwnedFd,
    ) -> Result<(), Error> {
        self.process.io.connect(client, master)?;
        self.process.go_on()?;
        let said = tokio::time::timeout(EXECUTE_BOUND, read_all(failure));
        let said = said.await.context("execute the program")?;
        match said.context("hear from the process")?.as_str() {
            "" => Ok(()),
            reason => Err(Error::invalid(reason)),
        }
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
