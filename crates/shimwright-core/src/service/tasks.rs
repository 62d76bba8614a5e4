//! The tasks of this shim, and what each call does to them.

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
use tokio::task::JoinHandle;

use super::reply;
use crate::bundle::{Bundle, Init, Record, validate_id};
use crate::cgroup::{Cgroups, Hierarchies};
use crate::content::Store;
use crate::error::{Context, Error};
use crate::events::Events;
use crate::exit::Status;
use crate::host::Host;
use crate::options::RuntimeOptions;
use crate::reaper::Reaper;
use crate::sandbox::build::Job;
use crate::sandbox::cleanup;
use crate::sandbox::launcher::{Launcher, Reply};
use crate::stdio::{self, Held};
use crate::sys;
use crate::task::{Deletable, Exited, State};

/// How long killed tasks may take to end when the shim is told to end.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// How long `delete` waits for a client that has not opened an output yet.
const CLIENT_BOUND: Duration = Duration::from_secs(5);

/// What all tasks of a shim process have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: &'static Host,
    pub(crate) events: Arc<Events>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) store: Store,
    /// The descriptor of the log, which launchers write to as well.
    pub(crate) log: Option<i32>,
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
    pub(super) streams: StreamPaths,
    shared: Arc<Shared>,
    state: watch::Sender<State>,
    /// What is known once the sandbox exists.
    sandbox: OnceLock<Sandbox>,
    held: Mutex<Held>,
    /// Waits for clients that have not opened their outputs yet, until the task is deleted.
    waiting: Mutex<Option<JoinHandle<()>>>,
    /// Whether the spec has hooks to run after `start`.
    poststart: AtomicBool,
    /// Held while the task is started or deleted, which must not overlap.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Sandbox {
    cgroups: Cgroups,
    /// A handle on the first process, which cannot come to mean another one.
    init: OwnedFd,
}

/// The streams as the client named them.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamPaths {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
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

    /// Finds a task that has been created.
    pub(super) fn find(&self, id: &str) -> Result<Arc<Task>, Error> {
        let found = self.lock().get(id).cloned();
        // While it is being created there is nothing to see yet.
        found
            .filter(|task| task.state() != State::Creating)
            .ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    /// Creates a task and returns the pid of its first process.
    pub(super) async fn create(&self, request: api::CreateTaskRequest) -> Result<u32, Error> {
        validate_id(&request.id)?;
        if !request.checkpoint.is_empty() {
            return Err(Error::NotSupported {
                operation: "restoring a checkpoint".to_owned(),
            });
        }
        if request.terminal {
            return Err(Error::NotSupported {
                operation: "a terminal".to_owned(),
            });
        }
        let options = RuntimeOptions::decode(request.options.as_ref())?;
        let task = self.reserve(&request)?;
        let created = task.create(&request, &options).await;
        if created.is_err() {
            self.lock().remove(&request.id);
        }
        created
    }

    /// Takes the id, before anything else is done for the request.
    fn reserve(&self, request: &api::CreateTaskRequest) -> Result<Arc<Task>, Error> {
        match self.lock().entry(request.id.clone()) {
            Entry::Occupied(_) => Err(Error::AlreadyExists {
                id: request.id.clone(),
            }),
            Entry::Vacant(free) => {
                let task = Task {
                    id: request.id.clone(),
                    bundle: Bundle::new(&request.bundle),
                    streams: StreamPaths {
                        stdin: request.stdin.clone(),
                        stdout: request.stdout.clone(),
                        stderr: request.stderr.clone(),
                    },
                    shared: Arc::clone(&self.shared),
                    state: watch::Sender::new(State::Creating),
                    sandbox: OnceLock::new(),
                    held: Mutex::default(),
                    waiting: Mutex::default(),
                    poststart: AtomicBool::new(false),
                    changing: tokio::sync::Mutex::default(),
                };
                Ok(Arc::clone(free.insert(Arc::new(task))))
            }
        }
    }

    /// Starts the guest and returns the pid of the task's first process.
    pub(super) async fn start(&self, id: &str) -> Result<u32, Error> {
        let task = self.find(id)?;
        let _changing = task.changing.lock().await;
        let init = task.start()?;
        task.run_poststart_hooks().await?;
        Ok(reply::pid(Some(init)))
    }

    /// Sends a signal to the first process, or to every process of the container.
    pub(super) fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let task = self.find(id)?;
        task.state().killable()?;
        if all {
            return task.kill_every_process(signal);
        }
        reply::send_signal(task.init()?, signal)
    }

    /// Removes a task that has ended or was never started.
    pub(super) async fn delete(&self, id: &str) -> Result<(Init, Exited), Error> {
        let task = self.find(id)?;
        let _changing = task.changing.lock().await;
        // Another call may have deleted it while this one waited.
        self.find(id)?;
        let deleted = task.delete().await?;
        self.lock().remove(id);
        Ok(deleted)
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

    /// Waits until the task has ended.
    pub(super) async fn exit(&self) -> Exited {
        let mut state = self.state.subscribe();
        loop {
            if let Some(exited) = state.borrow_and_update().exited() {
                return exited;
            }
            if state.changed().await.is_err() {
                // The sender lives in `self`, which is borrowed.
                return Exited {
                    status: Status::KILLED,
                    at: SystemTime::now(),
                };
            }
        }
    }

    /// Lets the guest see the end of its standard input.
    pub(super) fn close_stdin(&self) {
        self.held().close_stdin();
    }

    async fn create(
        self: &Arc<Self>,
        request: &api::CreateTaskRequest,
        options: &RuntimeOptions,
    ) -> Result<u32, Error> {
        let paths = &self.streams;
        let (streams, held) = stdio::open(&paths.stdin, &paths.stdout, &paths.stderr)?;
        *self.held() = held;
        let shared = &self.shared;
        let launching = shared.reaper.launching();
        let keep = [
            Some(streams.stdin.as_raw_fd()),
            Some(streams.stdout.as_raw_fd()),
            Some(streams.stderr.as_raw_fd()),
            Some(shared.alive.0.as_raw_fd()),
            shared.log,
        ];
        let keep: Vec<_> = keep.into_iter().flatten().collect();
        let launcher = Launcher::start(&shared.reaper, &keep, || {
            let shim_alive = shared.alive.0.try_clone().context("duplicate a pipe")?;
            let job = Job {
                host: shared.host,
                id: &self.id,
                bundle: &self.bundle,
                mounts: &request.rootfs,
                options,
                hierarchies: &shared.hierarchies,
                store: &shared.store,
                shim_alive,
            };
            job.run(streams)
        })?;
        let reply = match launcher.reply().await {
            Ok(reply) => reply,
            Err(error) => {
                // One that answered has undone what it did; one that died has not.
                if !matches!(error, Error::Remote { .. }) {
                    self.undo().await;
                }
                return Err(error);
            }
        };
        let (
            Reply::Created {
                init,
                cgroups,
                poststart,
            },
            Some(handle),
        ) = reply
        else {
            return Err(Error::Failed {
                action: "create the container".to_owned(),
                source: "the launcher gave an answer to something else".into(),
            });
        };
        let ended = launching.named(init.pid);
        self.poststart.store(poststart, Ordering::Relaxed);
        // Nobody else sets it: the id was reserved for this call.
        let _ = self.sandbox.set(Sandbox {
            cgroups,
            init: handle,
        });
        self.change(|state| state.created(init))?;
        self.publish_create(request, init);
        let task = Arc::clone(self);
        tokio::spawn(async move {
            // The sender is dropped only if the reaper is, that is, with the shim.
            if let Ok(status) = ended.await {
                task.ended(status);
            }
        });
        Ok(reply::pid(Some(init)))
    }

    /// Removes what a launcher that died has left of a container.
    async fn undo(&self) {
        let Some(record) = self.bundle.record() else {
            return;
        };
        let undone = match self.launch(|| cleanup::undo(&self.bundle, &record)) {
            Ok(launcher) => launcher.reply().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            tracing::error!(%error, id = self.id, "cannot undo a failed create");
        }
    }

    fn publish_create(&self, request: &api::CreateTaskRequest, init: Init) {
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
    fn start(&self) -> Result<Init, Error> {
        self.state().startable()?;
        self.notify_first_process()?;
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

    /// Speaks to libcontainer's listener in the first process (`notify_socket.rs` there). The
    /// connection is accepted into its backlog, so nothing here waits for that process.
    fn notify_first_process(&self) -> Result<(), Error> {
        let notify = || -> std::io::Result<()> {
            let directory = self.bundle.libcontainer().join(&self.id);
            let directory = std::fs::File::open(directory)?;
            // The path of a socket is at most 108 bytes, and a bundle's may be longer.
            let path = format!("/proc/self/fd/{}/notify.sock", directory.as_raw_fd());
            UnixStream::connect(path)?.write_all(b"start container")
        };
        notify().context("start the container's first process")
    }

    async fn run_poststart_hooks(&self) -> Result<(), Error> {
        if !self.poststart.load(Ordering::Relaxed) {
            return Ok(());
        }
        let spec = self.bundle.spec()?;
        let directory = self.bundle.libcontainer().join(&self.id);
        let launcher = self.launch(move || cleanup::run_poststart_hooks(&directory, &spec))?;
        launcher.reply().await.map(drop)
    }

    /// The first process has ended.
    fn ended(&self, status: Status) {
        let exited = Exited {
            status,
            at: SystemTime::now(),
        };
        let init = self.state.borrow().init();
        // With a pid namespace of its own the kernel has ended the rest already.
        if self.kill_rest().is_err() {
            tracing::warn!(id = self.id, "cannot end what the task left behind");
        }
        let waiting = self.held().take_unseen();
        let waiting = tokio::spawn(waiting.opened());
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
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
        for pid in self.cgroups().processes()? {
            let flags = rustix::process::PidfdFlags::empty();
            if let Ok(handle) = rustix::process::pidfd_open(pid, flags) {
                let _ = sys::pidfd_send_signal(&handle, libc::SIGKILL);
            }
        }
        Ok(())
    }

    fn kill_every_process(&self, signal: u32) -> Result<(), Error> {
        let processes = self
            .cgroups()
            .processes()
            .context("list the container's processes")?;
        for pid in processes {
            let flags = rustix::process::PidfdFlags::empty();
            if let Ok(handle) = rustix::process::pidfd_open(pid, flags) {
                match reply::send_signal(&handle, signal) {
                    Ok(()) | Err(Error::Finished) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        reply::send_signal(self.init()?, signal)
    }

    async fn delete(&self) -> Result<(Init, Exited), Error> {
        if self.state().deletable()? == Deletable::AfterKill {
            match reply::send_signal(self.init()?, libc::SIGKILL.unsigned_abs()) {
                Ok(()) | Err(Error::Finished) => {}
                Err(error) => return Err(error),
            }
        }
        let exited = self.exit().await;
        let bundle = self.bundle.clone();
        let mut record = bundle.record().unwrap_or_else(|| Record::new(&self.id));
        record.cgroups = self.cgroups();
        // It has been collected: its pid may be another process's by now.
        record.init = None;
        let launcher = self.launch(move || cleanup::remove(&bundle, &record))?;
        launcher.reply().await?;
        self.wait_for_clients().await;
        *self.held() = Held::default();

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

    /// Gives clients that are late, on a busy machine, the time to open the outputs: what was
    /// written would be lost with the last descriptor, and their opening would wait for ever.
    async fn wait_for_clients(&self) {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut waiting) = waiting
            && tokio::time::timeout(CLIENT_BOUND, &mut waiting)
                .await
                .is_err()
        {
            tracing::debug!(id = self.id, "nobody has opened an output");
            waiting.abort();
        }
    }

    fn launch(&self, job: impl FnOnce() -> Result<(), Error>) -> Result<Launcher, Error> {
        let keep: Vec<_> = self.shared.log.into_iter().collect();
        Launcher::start(&self.shared.reaper, &keep, || {
            job().map(|()| (Reply::Done, None))
        })
    }

    fn init(&self) -> Result<&OwnedFd, Error> {
        let sandbox = self.sandbox.get();
        sandbox
            .map(|sandbox| &sandbox.init)
            .ok_or_else(|| Error::NotFound {
                id: self.id.clone(),
            })
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

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
