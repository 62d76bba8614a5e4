//! One task: a container with its first process, from `create` to `delete`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use containerd_shim_protos::api::CreateTaskRequest;

use super::client::{Caller, Wanted};
use super::exec::Exec;
use super::io::{Io, Pending, StreamPaths};
use super::process::{Process, send_signal};
use super::reply;
use super::state::{Deletable, Exited, Name, State};
use super::tasks::Shared;
use crate::cgroup::Cgroups;
use crate::cgroup::oom::Oom;
use crate::config::bundle::Bundle;
use crate::config::options::RuntimeOptions;
use crate::config::record::{ContainerKind, Record};
use crate::container::cleanup;
use crate::container::create::{Created, Job};
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::process::launcher::Launcher;
use crate::stdio::Stdio;

/// How long the execs of a task whose first process has ended may take to end too.
const EXECS_BOUND: Duration = Duration::from_secs(10);

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    /// The container's first process.
    pub(super) process: Process,
    pub(super) bundle: Bundle,
    pub(super) shared: Arc<Shared>,
    /// Who asked for it.
    pub(super) creator: Caller,
    /// What is known once the container exists.
    sandbox: OnceLock<Sandbox>,
    pub(super) execs: Mutex<HashMap<String, Arc<Exec>>>,
    /// Whether the spec has hooks to run after `start`.
    poststart: AtomicBool,
    /// Held while the task is started or deleted, which must not overlap.
    pub(super) changing: tokio::sync::RwLock<()>,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) cgroups: Cgroups,
    /// Counts what was killed for lack of memory, if that is known.
    pub(super) oom: Option<Oom>,
    pub(super) kind: ContainerKind,
    pub(super) options: RuntimeOptions,
}

impl Task {
    pub(super) fn new(request: &CreateTaskRequest, creator: Caller, shared: &Arc<Shared>) -> Self {
        let paths = StreamPaths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let name = Name::task(&request.id);
        Self {
            process: Process::new(name, paths, State::Creating, &shared.events),
            bundle: Bundle::new(&request.bundle),
            shared: Arc::clone(shared),
            creator,
            sandbox: OnceLock::new(),
            execs: Mutex::default(),
            poststart: AtomicBool::new(false),
            changing: tokio::sync::RwLock::default(),
        }
    }

    /// The container's id.
    pub(super) fn id(&self) -> &str {
        self.process.id()
    }

    /// The container's control groups; none while there is no container.
    pub(super) fn cgroups(&self) -> Cgroups {
        self.sandbox
            .get()
            .map(|sandbox| sandbox.cgroups.clone())
            .unwrap_or_default()
    }

    /// What there is once the container exists.
    pub(super) fn sandbox(&self) -> Result<&Sandbox, Error> {
        self.sandbox.get().ok_or_else(|| Error::NotFound {
            id: self.id().to_owned(),
        })
    }

    /// Makes the container and returns the pid of its first process.
    pub(super) async fn create(
        self: &Arc<Self>,
        request: &CreateTaskRequest,
        options: RuntimeOptions,
        wanted: &Wanted,
    ) -> Result<u32, Error> {
        let opening = self.open(&self.process.io, &options);
        let (stdio, client) = wanted.unless_over(opening).await?;
        let launching = self.shared.reaper.launching();
        let launcher = self.launch_create(request, &options, stdio, wanted)?;
        let Created {
            init,
            handle,
            start,
            cgroups,
            master,
            poststart,
            kind,
        } = self.answer(launcher, wanted).await?;
        let ended = launching.named(init.pid);
        self.poststart.store(poststart, Ordering::Relaxed);
        self.process.made(handle.into(), start.into());
        // Nobody else sets it: the id was reserved for this call.
        let _ = self.sandbox.set(Sandbox {
            oom: Oom::of(&cgroups),
            cgroups,
            kind,
            options,
        });
        if let Err(error) = self.process.io.connect(client, master.map(Into::into)) {
            self.undo().await;
            return Err(error);
        }
        self.process
            .change(|state, name| state.created(name, init, request))?;
        tokio::spawn(Arc::clone(self).watch_memory());
        let task = Arc::clone(self);
        tokio::spawn(async move {
            // The sender is dropped only if the reaper is, that is, with the shim.
            if let Ok(status) = ended.await {
                task.ended(status).await;
            }
        });
        Ok(reply::pid(Some(init)))
    }

    /// Starts the launcher that makes the container.
    fn launch_create(
        &self,
        request: &CreateTaskRequest,
        options: &RuntimeOptions,
        stdio: Stdio,
        wanted: &Wanted,
    ) -> Result<Launcher<Created>, Error> {
        let shared = &self.shared;
        let given = (stdio, &shared.alive.0, &shared.log, wanted);
        Launcher::start(&shared.reaper, given, |(stdio, alive, _, wanted)| {
            let shim_alive = alive.try_clone().context("duplicate a pipe")?;
            let job = Job {
                host: shared.host,
                id: self.id(),
                bundle: &self.bundle,
                mounts: &request.rootfs,
                options,
                hierarchies: &shared.hierarchies,
                store: &shared.store,
                shim_alive,
                wanted: wanted.try_clone()?,
            };
            job.run(stdio)
        })
    }

    /// Waits for the outcome of a create. If it failed, undoes what is left of it.
    async fn answer(&self, launcher: Launcher<Created>, wanted: &Wanted) -> Result<Created, Error> {
        let answer = match wanted.answer(launcher).await {
            Ok(_) if wanted.is_over() => Err(Error::invalid("the client has gone")),
            // A launcher that answered has undone what it did; one that died has not.
            Err(error @ Error::Remote { .. }) => return Err(error),
            answer => answer,
        };
        if answer.is_err() {
            self.undo().await;
        }
        answer
    }

    /// Removes what a launcher that died has left of a container.
    async fn undo(&self) {
        let Some(record) = self.bundle.record() else {
            return;
        };
        let undone = match self.launch(|| cleanup::undo(&self.bundle, &record, cleanup::PATIENT)) {
            Ok(launcher) => launcher.reply().await,
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            tracing::error!(%error, id = self.id(), "cannot undo a failed create");
        }
    }

    /// Tells the first process to go on. From the word to the event nothing can come in between:
    /// there is one thread, and no point where it waits.
    pub(super) fn start(&self) -> Result<(), Error> {
        self.process.state().startable(&self.process.name)?;
        self.process
            .go_on()
            .context("start the container's first process")?;
        self.process.change(State::started)
    }

    /// Runs the hooks that belong after the start. Nobody's hooks are ended.
    pub(super) async fn run_poststart_hooks(&self, wanted: &Wanted) -> Result<(), Error> {
        if !self.poststart.load(Ordering::Relaxed) {
            return Ok(());
        }
        let spec = self.bundle.spec()?;
        let (bundle, id) = (self.bundle.clone(), self.id().to_owned());
        let pid = self.process.state().process().map(|process| process.pid);
        let hooks = move || cleanup::run_poststart_hooks(&bundle, &id, pid, &spec);
        let launcher = self.launch(hooks)?;
        wanted.answer(launcher).await
    }

    /// The first process has ended. Its exit is the last that is told.
    async fn ended(&self, status: Status) {
        let exited = Exited::now(status);
        // With a pid namespace of its own the kernel has ended the rest already.
        if self.kill_rest().is_err() {
            tracing::warn!(id = self.id(), "cannot end what the task left behind");
        }
        self.thaw_to_end();
        if tokio::time::timeout(EXECS_BOUND, self.execs_ended())
            .await
            .is_err()
        {
            tracing::warn!(id = self.id(), "an exec does not end");
        }
        self.report_oom();
        self.process.ended(exited);
    }

    fn kill_rest(&self) -> std::io::Result<()> {
        for (_, handle) in self.cgroups().handles()? {
            // It may have ended meanwhile.
            let _ = send_signal(&handle, libc::SIGKILL.unsigned_abs());
        }
        Ok(())
    }

    /// Sends a signal to the first process, or to every process of the container.
    pub(super) fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        if all {
            self.process.state().killable(&self.process.name)?;
            self.kill_every_process(signal)?;
        } else {
            self.process.kill(signal)?;
        }
        // A process that is killed has to run once more to end.
        if signal == libc::SIGKILL.unsigned_abs() {
            self.thaw_to_end();
        }
        Ok(())
    }

    /// Sends a signal to each process of the container, once.
    fn kill_every_process(&self, signal: u32) -> Result<(), Error> {
        let processes = self.cgroups().handles();
        let processes = processes.context("list the container's processes")?;
        // The list has the first process too. If that has ended, another process may have its pid.
        let init = self.process.kill(signal);
        let signalled = init.is_ok().then(|| self.process.state().process());
        let signalled = signalled.flatten().map(|process| process.pid);
        for (pid, handle) in processes {
            if signalled == Some(pid.as_raw_nonzero().get()) {
                continue;
            }
            match send_signal(&handle, signal) {
                Ok(()) | Err(Error::Finished) => {}
                Err(error) => return Err(error),
            }
        }
        init
    }

    /// Removes the container, whose process has ended or was never started.
    pub(super) async fn delete(&self) -> Result<(), Error> {
        let process = &self.process;
        if process.state().deletable(&process.name)? == Deletable::AfterKill {
            match process.kill(libc::SIGKILL.unsigned_abs()) {
                Ok(()) | Err(Error::Finished) => {}
                Err(error) => return Err(error),
            }
        }
        process.exit().await;
        // While the record of it is still there.
        process.io.stop_loggers().await;
        let bundle = self.bundle.clone();
        let mut record = bundle.record().unwrap_or_else(|| Record::new(self.id()));
        record.cgroups = self.cgroups();
        // It has been collected: its pid may be another process's by now.
        record.init = None;
        let launcher = self.launch(move || cleanup::remove(&bundle, &record))?;
        launcher.reply().await?;
        self.close_execs().await;
        process.io.close(self.id()).await;
        process.change(|state, name| state.deleted(name))
    }

    /// Opens the streams of a process that is about to be made, and starts what is to read them.
    pub(super) async fn open(
        &self,
        io: &Io,
        options: &RuntimeOptions,
    ) -> Result<(Stdio, Pending), Error> {
        let (reaper, namespace) = (&self.shared.reaper, &self.shared.store.namespace);
        let opened = io.open(reaper).await?;
        if let Stdio::Streams(streams) = &opened.0
            && (options.io_uid, options.io_gid) != (0, 0)
        {
            streams.give_to(options.io_uid, options.io_gid)?;
        }
        io.start_loggers(reaper, &self.bundle, self.id(), namespace)
            .await?;
        Ok(opened)
    }

    pub(super) fn launch(
        &self,
        job: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Launcher<()>, Error> {
        Launcher::start(&self.shared.reaper, &self.shared.log, |_| job())
    }
}
