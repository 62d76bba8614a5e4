//! The tasks of this shim, and what each call does to them.

mod control;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api;
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics;
use tokio::sync::watch;

use super::client::{Caller, Wanted};
use super::execs::Exec;
use super::io::{Io, Pending, StreamPaths};
use super::reply;
use crate::cgroup::oom::Oom;
use crate::cgroup::{Cgroups, Hierarchies};
use crate::code::content::Store;
use crate::config::bundle::{Bundle, validate_id};
use crate::config::identity::ProcessId;
use crate::config::options::RuntimeOptions;
use crate::config::record::ContainerKind;
use crate::config::record::Record;
use crate::container::cleanup;
use crate::container::create::{Created, Job};
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::process::launcher::Launcher;
use crate::process::reaper::Reaper;
use crate::runner::host::Host;
use crate::service::events::Events;
use crate::service::log::Log;
use crate::service::state::{Deletable, Exited, State};
use crate::stdio::Stdio;
use crate::sys;

/// How long killed tasks may take to end when the shim is told to end.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// How long the execs of a task whose first process has ended may take to end too.
const EXECS_BOUND: Duration = Duration::from_secs(10);

/// What is called with the id of a container that is gone.
pub(crate) struct Released(pub(crate) Box<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Released {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) bundle: Bundle,
    pub(super) io: Io,
    pub(super) shared: Arc<Shared>,
    /// Who asked for it.
    creator: Caller,
    state: watch::Sender<State>,
    /// What is known once the sandbox exists.
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
    oom: Option<Oom>,
    /// A handle on the first process, which cannot come to mean another one.
    pub(super) init: OwnedFd,
    pub(super) kind: ContainerKind,
    pub(super) options: RuntimeOptions,
}

/// The process that a call is about.
#[derive(Debug)]
pub(super) enum Target {
    Init(Arc<Task>),
    Exec(Arc<Task>, Arc<Exec>),
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
        let tasks = self.lock();
        tasks.values().all(|task| task.state() == State::Creating)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Finds a task that has been created.
    pub(super) fn find(&self, id: &str) -> Result<Arc<Task>, Error> {
        let found = self.lock().get(id).cloned();
        // While it is being created there is nothing to see yet.
        found
            .filter(|task| task.state() != State::Creating)
            .ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    /// Finds a process: an empty `exec` is the first one.
    pub(super) fn target(&self, id: &str, exec: &str) -> Result<Target, Error> {
        let task = self.find(id)?;
        if exec.is_empty() {
            return Ok(Target::Init(task));
        }
        let exec = task.exec(exec)?;
        Ok(Target::Exec(task, exec))
    }

    /// Creates a task and returns the pid of its first process.
    pub(super) async fn create(
        &self,
        request: api::CreateTaskRequest,
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
            task.io.stop_loggers().await;
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
            let creating = tasks.values().filter(|task| {
                if task.id == id && task.state() == State::Creating {
                    task.creator.give_up();
                }
                task.creator.has_gone() && task.state() == State::Creating
            });
            creating.map(|task| task.state.subscribe()).collect()
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
    fn reserve(
        &self,
        request: &api::CreateTaskRequest,
        wanted: &Wanted,
    ) -> Result<Arc<Task>, Error> {
        match self.lock().entry(request.id.clone()) {
            Entry::Occupied(_) => Err(Error::AlreadyExists {
                id: request.id.clone(),
            }),
            Entry::Vacant(free) => {
                let task = Task {
                    id: request.id.clone(),
                    bundle: Bundle::new(&request.bundle),
                    io: Io::new(StreamPaths {
                        stdin: request.stdin.clone(),
                        stdout: request.stdout.clone(),
                        stderr: request.stderr.clone(),
                        terminal: request.terminal,
                    }),
                    shared: Arc::clone(&self.shared),
                    creator: wanted.caller(),
                    state: watch::Sender::new(State::Creating),
                    sandbox: OnceLock::new(),
                    execs: Mutex::default(),
                    poststart: AtomicBool::new(false),
                    changing: tokio::sync::RwLock::default(),
                };
                Ok(Arc::clone(free.insert(Arc::new(task))))
            }
        }
    }

    /// Forgets a task. If the log is in its bundle, it moves to that of another one.
    fn remove(&self, task: &Task) {
        let mut tasks = self.lock();
        tasks.remove(&task.id);
        let directory = task.bundle.directory();
        if let Some(log) = self.shared.log.as_ref().filter(|log| log.is_of(directory))
            && let Some(other) = tasks.values().next()
        {
            log.move_to(other.bundle.directory());
        }
    }

    /// Starts a process and returns its pid.
    pub(super) async fn start(&self, target: Target, wanted: Wanted) -> Result<u32, Error> {
        let task = match target {
            Target::Init(task) => task,
            Target::Exec(task, exec) => return task.start_exec(&exec, &wanted).await,
        };
        let _changing = task.changing.write().await;
        let init = task.start()?;
        task.run_poststart_hooks().await?;
        Ok(reply::pid(Some(init)))
    }

    /// Removes a process that has ended or was never started, and says how it ended; an exec that
    /// was never started has not.
    pub(super) async fn delete(
        &self,
        target: Target,
    ) -> Result<(Option<ProcessId>, Option<Exited>), Error> {
        let task = match target {
            Target::Init(task) => task,
            Target::Exec(task, exec) => return task.delete_exec(&exec).await,
        };
        let _changing = task.changing.write().await;
        // Another call may have deleted it while this one waited.
        self.find(&task.id)?;
        let (init, exited) = task.delete().await?;
        self.remove(&task);
        Ok((Some(init), Some(exited)))
    }

    /// Kills every task and waits until each has ended, within a bound.
    pub(super) async fn kill_all(&self) {
        let tasks: Vec<_> = self.lock().values().cloned().collect();
        for task in &tasks {
            // One that has ended, or has no process yet, needs no signal.
            let _ = task.kill_every_process(libc::SIGKILL.unsigned_abs());
        }
        let ended = async {
            for task in tasks.iter().filter(|task| task.state().init().is_some()) {
                task.exit().await;
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

impl Target {
    /// Sends a signal to the process or, if that is the first one, to all of the container.
    pub(super) fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        match self {
            Self::Exec(_, exec) => exec.kill(signal),
            Self::Init(task) => {
                task.state().killable()?;
                if all {
                    return task.kill_every_process(signal);
                }
                reply::send_signal(&task.sandbox()?.init, signal)?;
                task.signalled(signal);
                Ok(())
            }
        }
    }

    /// Waits until the process has ended.
    pub(super) async fn exit(&self) -> Exited {
        match self {
            Self::Init(task) => task.exit().await,
            Self::Exec(_, exec) => exec.exit().await,
        }
    }

    /// Changes the size of the process's terminal.
    pub(super) fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        match self {
            Self::Init(task) => task.state().resizable()?,
            Self::Exec(_, exec) => exec.state().resizable()?,
        }
        self.io().resize(width, height)
    }

    /// The streams of the process.
    pub(super) fn io(&self) -> &Io {
        match self {
            Self::Init(task) => &task.io,
            Self::Exec(_, exec) => &exec.io,
        }
    }
}

impl Task {
    pub(super) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// The container's control groups; none while there is no sandbox.
    pub(super) fn cgroups(&self) -> Cgroups {
        self.sandbox
            .get()
            .map(|sandbox| sandbox.cgroups.clone())
            .unwrap_or_default()
    }

    /// What there is once the sandbox exists.
    pub(super) fn sandbox(&self) -> Result<&Sandbox, Error> {
        self.sandbox.get().ok_or_else(|| Error::NotFound {
            id: self.id.clone(),
        })
    }

    /// Waits until the task has ended.
    pub(super) async fn exit(&self) -> Exited {
        exited(self.state.subscribe(), |state| state.exited()).await
    }

    async fn create(
        self: &Arc<Self>,
        request: &api::CreateTaskRequest,
        options: RuntimeOptions,
        wanted: &Wanted,
    ) -> Result<u32, Error> {
        let (stdio, client) = self.open(&self.io, &options).await?;
        let shared = &self.shared;
        let launching = shared.reaper.launching();
        let given = (stdio, &shared.alive.0, &shared.log, wanted);
        let launcher = Launcher::start(&shared.reaper, given, |(stdio, alive, _, wanted)| {
            let shim_alive = alive.try_clone().context("duplicate a pipe")?;
            let job = Job {
                host: shared.host,
                id: &self.id,
                bundle: &self.bundle,
                mounts: &request.rootfs,
                options: &options,
                hierarchies: &shared.hierarchies,
                store: &shared.store,
                shim_alive,
                wanted: wanted.try_clone()?,
            };
            job.run(stdio)
        })?;
        let created = match wanted.answer(launcher).await {
            Ok(_) if wanted.is_over() => {
                self.undo().await;
                return Err(Error::invalid("the client has gone"));
            }
            Ok(created) => created,
            Err(error) => {
                // One that answered has undone what it did; one that died has not.
                if !matches!(error, Error::Remote { .. }) {
                    self.undo().await;
                }
                return Err(error);
            }
        };
        let Created {
            init,
            handle,
            cgroups,
            master,
            poststart,
            kind,
        } = created;
        let ended = launching.named(init.pid);
        self.poststart.store(poststart, Ordering::Relaxed);
        // Nobody else sets it: the id was reserved for this call.
        let _ = self.sandbox.set(Sandbox {
            oom: Oom::of(&cgroups),
            cgroups,
            init: handle.into(),
            kind,
            options,
        });
        if let Err(error) = self.io.connect(client, master.map(Into::into)) {
            self.undo().await;
            return Err(error);
        }
        self.change(|state| state.created(init))?;
        self.publish_create(request, init);
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
            tracing::error!(%error, id = self.id, "cannot undo a failed create");
        }
    }

    fn publish_create(&self, request: &api::CreateTaskRequest, init: ProcessId) {
        let event = TaskCreate {
            container_id: self.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: MessageField::some(TaskIO {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
                ..Default::default()
            }),
            pid: reply::pid(Some(init)),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_CREATE_EVENT_TOPIC, &event);
    }

    /// Tells the first process to go on. From the word to the event nothing can come in between:
    /// there is one thread, and no point where it waits.
    fn start(&self) -> Result<ProcessId, Error> {
        self.state().startable()?;
        self.notify("notify.sock")
            .context("start the container's first process")?;
        let init = self.change(State::started)?;
        let event = TaskStart {
            container_id: self.id.clone(),
            pid: reply::pid(Some(init)),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_START_EVENT_TOPIC, &event);
        Ok(init)
    }

    /// Speaks to libcontainer's listener in a process that waits (`notify_socket.rs` there). The
    /// connection is accepted into its backlog, so nothing here waits for that process.
    pub(super) fn notify(&self, socket: &str) -> std::io::Result<()> {
        let directory = self.bundle.libcontainer().join(&self.id);
        let directory = std::fs::File::open(directory)?;
        // The path of a socket is at most 108 bytes, and a bundle's may be longer.
        let path = format!("/proc/self/fd/{}/{socket}", directory.as_raw_fd());
        UnixStream::connect(path)?.write_all(b"start container")
    }

    async fn run_poststart_hooks(&self) -> Result<(), Error> {
        if !self.poststart.load(Ordering::Relaxed) {
            return Ok(());
        }
        let spec = self.bundle.spec()?;
        let directory = self.bundle.libcontainer().join(&self.id);
        let launcher = self.launch(move || cleanup::run_poststart_hooks(&directory, &spec))?;
        launcher.reply().await
    }

    /// The first process has ended. Its exit is the last that is told.
    async fn ended(&self, status: Status) {
        let exited = Exited {
            status,
            at: SystemTime::now(),
        };
        let init = self.state.borrow().init();
        // With a pid namespace of its own the kernel has ended the rest already.
        if self.kill_rest().is_err() {
            tracing::warn!(id = self.id, "cannot end what the task left behind");
        }
        self.thaw_to_end();
        if tokio::time::timeout(EXECS_BOUND, self.execs_ended())
            .await
            .is_err()
        {
            tracing::warn!(id = self.id, "an exec does not end");
        }
        self.report_oom();
        self.io.ended();
        let mut noticed = false;
        self.state.send_if_modified(|state| {
            noticed = state.stopped(exited).is_some();
            noticed
        });
        if noticed {
            let event = TaskExit {
                container_id: self.id.clone(),
                id: self.id.clone(),
                pid: reply::pid(init),
                exit_status: status.into(),
                exited_at: reply::timestamp(exited.at),
                ..Default::default()
            };
            self.shared
                .events
                .publish(topics::TASK_EXIT_EVENT_TOPIC, &event);
        }
    }

    fn kill_rest(&self) -> std::io::Result<()> {
        for (_, handle) in self.cgroups().handles()? {
            let _ = sys::signal::pidfd_send_signal(&handle, libc::SIGKILL);
        }
        Ok(())
    }

    /// Sends a signal to every process of the container, and to each of them once.
    fn kill_every_process(&self, signal: u32) -> Result<(), Error> {
        let processes = self.cgroups().handles();
        let processes = processes.context("list the container's processes")?;
        // The first process is in the list too, unless it has just ended: its pid may then be
        // another process's.
        let init = reply::send_signal(&self.sandbox()?.init, signal);
        let signalled = init.is_ok().then(|| self.state().init()).flatten();
        for (pid, handle) in processes {
            if signalled.is_some_and(|init| init.pid == pid.as_raw_nonzero().get()) {
                continue;
            }
            match reply::send_signal(&handle, signal) {
                Ok(()) | Err(Error::Finished) => {}
                Err(error) => return Err(error),
            }
        }
        init?;
        self.signalled(signal);
        Ok(())
    }

    /// A process that is killed has to run once more to end.
    fn signalled(&self, signal: u32) {
        if signal == libc::SIGKILL.unsigned_abs() {
            self.thaw_to_end();
        }
    }

    async fn delete(&self) -> Result<(ProcessId, Exited), Error> {
        if self.state().deletable()? == Deletable::AfterKill {
            match reply::send_signal(&self.sandbox()?.init, libc::SIGKILL.unsigned_abs()) {
                Ok(()) | Err(Error::Finished) => {}
                Err(error) => return Err(error),
            }
        }
        let exited = self.exit().await;
        // While the record of it is still there.
        self.io.stop_loggers().await;
        let bundle = self.bundle.clone();
        let mut record = bundle.record().unwrap_or_else(|| Record::new(&self.id));
        record.cgroups = self.cgroups();
        // It has been collected: its pid may be another process's by now.
        record.init = None;
        let launcher = self.launch(move || cleanup::remove(&bundle, &record))?;
        launcher.reply().await?;
        self.close_execs().await;
        self.io.close(&self.id).await;

        let init = self.state().init().ok_or_else(|| Error::NotFound {
            id: self.id.clone(),
        })?;
        let event = TaskDelete {
            container_id: self.id.clone(),
            pid: reply::pid(Some(init)),
            exit_status: exited.status.into(),
            exited_at: reply::timestamp(exited.at),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_DELETE_EVENT_TOPIC, &event);
        Ok((init, exited))
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
        io.start_loggers(reaper, &self.bundle, &self.id, namespace)
            .await?;
        Ok(opened)
    }

    fn launch(&self, job: impl FnOnce() -> Result<(), Error>) -> Result<Launcher<()>, Error> {
        Launcher::start(&self.shared.reaper, &self.shared.log, |_| job())
    }

    fn change<T>(
        &self,
        transition: impl FnOnce(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut outcome = None;
        self.state.send_if_modified(|state| {
            let result = transition(state);
            let changed = result.is_ok();
            outcome = Some(result);
            changed
        });
        outcome.unwrap_or_else(|| {
            Err(Error::NotFound {
                id: self.id.clone(),
            })
        })
    }
}

/// Waits until a state says how its process ended.
pub(super) async fn exited<S: Copy>(
    mut state: watch::Receiver<S>,
    of: impl Fn(S) -> Option<Exited>,
) -> Exited {
    loop {
        if let Some(exited) = of(*state.borrow_and_update()) {
            return exited;
        }
        if state.changed().await.is_err() {
            // The sender lives in the process that the caller holds.
            return Exited {
                status: Status::KILLED,
                at: SystemTime::now(),
            };
        }
    }
}
