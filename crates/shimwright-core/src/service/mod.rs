//! The Task service: one function for each call. With `service/reply.rs` it translates between the
//! tasks of this shim and the messages of the Task API.

mod client;
mod control;
mod event;
pub(crate) mod events;
mod exec;
mod io;
pub(crate) mod log;
mod process;
mod reply;
mod state;
mod task;
mod tasks;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::shim_async::{Task as TaskService, create_task};
use containerd_shim_protos::ttrpc::Result as TtrpcResult;
use containerd_shim_protos::ttrpc::r#async::{Service as TtrpcService, TtrpcContext};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::Error;
use crate::process::idle::{SETTLED, release_memory};
use client::Wanted;
pub(crate) use tasks::{Released, Shared};
use tasks::{Target, Tasks};

/// Answers the calls of containerd.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    tasks: Arc<Tasks>,
    /// Whether containerd has asked the shim to end, and no task has been created since.
    asked: Arc<AtomicBool>,
    /// Notified when that is so and there is no task.
    shutdown: Arc<Notify>,
    /// Notified when a process has been started.
    started: Arc<Notify>,
    /// Notified when the last task is gone.
    emptied: Arc<Notify>,
    /// Counts what shows that somebody needs this process: connections and creates.
    interest: Arc<AtomicU64>,
}

/// How long the process stays without a task if nobody asks for its end.
const FORGOTTEN: Duration = Duration::from_secs(10);

impl Service {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            tasks: Arc::new(Tasks::new(shared)),
            asked: Arc::default(),
            shutdown: Arc::new(Notify::new()),
            started: Arc::new(Notify::new()),
            emptied: Arc::new(Notify::new()),
            interest: Arc::default(),
        }
    }

    /// Somebody needs this process.
    pub(crate) fn interested(&self) {
        self.interest.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until there is no task any more and nobody has shown an interest for a while.
    ///
    /// containerd asks for the end after it has deleted the last task. If its own client gives up
    /// while it deletes, it does not, and nobody else can: it cannot find the task any more. The
    /// end of this process makes it remove what it has of the container.
    pub(crate) async fn forgotten(&self) {
        loop {
            self.emptied.notified().await;
            while self.is_idle() {
                let before = self.interest.load(Ordering::Relaxed);
                tokio::time::sleep(FORGOTTEN).await;
                if self.is_idle() && self.interest.load(Ordering::Relaxed) == before {
                    return;
                }
            }
        }
    }

    fn note_if_empty(&self) {
        if self.is_idle() {
            self.emptied.notify_one();
        }
    }

    /// Whether there is no task.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many tasks there are.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.count()
    }

    /// Waits until there is no task and containerd asks the shim to end.
    pub(crate) async fn shut_down(&self) {
        self.shutdown.notified().await;
    }

    /// Ends the shim once there is no task: at once, or when the creates under way have failed. If
    /// a create succeeds, containerd asks again after it has deleted that task.
    pub(crate) fn ask_to_shut_down(&self) {
        if self.tasks.none_created() {
            self.asked.store(true, Ordering::Relaxed);
            self.shut_down_if_due();
        }
    }

    fn shut_down_if_due(&self) {
        if self.asked.load(Ordering::Relaxed) && self.is_idle() {
            self.shutdown.notify_one();
        }
    }

    async fn create_task(
        &self,
        request: api::CreateTaskRequest,
        wanted: Wanted,
    ) -> Result<u32, Error> {
        self.interested();
        let created = self.tasks.create(request, wanted).await;
        self.note_if_empty();
        match &created {
            Ok(_) => self.asked.store(false, Ordering::Relaxed),
            Err(_) => self.shut_down_if_due(),
        }
        created
    }

    /// Lets go of memory that this process does not need to wait, whenever nothing was started for
    /// a while.
    pub(crate) async fn release_memory(self) {
        loop {
            self.started.notified().await;
            while timeout(SETTLED, self.started.notified()).await.is_ok() {}
            release_memory();
        }
    }

    /// Ends every task, for a shim that is told to end itself.
    pub(crate) async fn kill_all(&self) {
        self.tasks.kill_all().await;
    }

    fn target(&self, id: &str, exec: &str) -> TtrpcResult<Target> {
        let found = self.tasks.target(id, exec);
        found.map_err(|error| reply::error(&error))
    }

    /// The same service under both of its names: version 3 of the protocol is a renamed copy of
    /// version 2 (containerd, `api/runtime/task/v3`).
    pub(crate) fn registrations(&self) -> HashMap<String, TtrpcService> {
        let mut services = create_task(Arc::new(self.clone()));
        for (_, service) in create_task(Arc::new(self.clone())) {
            services.insert("containerd.task.v2.Task".to_owned(), service);
        }
        services
    }
}

/// The answer to a call that this shim does not have.
fn unsupported<T>(operation: &str) -> TtrpcResult<T> {
    Err(reply::error(&Error::NotSupported {
        operation: operation.to_owned(),
    }))
}

#[async_trait]
impl TaskService for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> TtrpcResult<api::CreateTaskResponse> {
        // A client that gives up must not leave half a container: what was made for it is undone.
        let (_waiting, wanted) = client::call().map_err(|error| reply::error(&error))?;
        let service = self.clone();
        let created = tokio::spawn(async move { service.create_task(request, wanted).await }).await;
        let pid = reply::joined(created)?;
        Ok(api::CreateTaskResponse {
            pid,
            ..Default::default()
        })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> TtrpcResult<api::StartResponse> {
        let target = self.target(&request.id, &request.exec_id)?;
        let (_waiting, wanted) = client::call().map_err(|error| reply::error(&error))?;
        let tasks = Arc::clone(&self.tasks);
        let started = tokio::spawn(async move { tasks.start(target, wanted).await }).await;
        let pid = reply::joined(started)?;
        self.started.notify_one();
        Ok(api::StartResponse {
            pid,
            ..Default::default()
        })
    }

    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> TtrpcResult<api::StateResponse> {
        let target = self.target(&request.id, &request.exec_id)?;
        Ok(reply::state(&target))
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> TtrpcResult<api::WaitResponse> {
        let target = self.target(&request.id, &request.exec_id)?;
        Ok(reply::wait(target.process().exit().await))
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> TtrpcResult<api::Empty> {
        let target = self.target(&request.id, &request.exec_id)?;
        let killed = target.kill(request.signal, request.all);
        killed.map_err(|error| reply::error(&error))?;
        Ok(api::Empty::new())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> TtrpcResult<api::DeleteResponse> {
        let service = self.clone();
        let deleted = tokio::spawn(async move {
            let tasks = &service.tasks;
            if request.exec_id.is_empty() {
                tasks.give_up(&request.id).await;
            } else if let Ok(task) = tasks.find(&request.id) {
                task.give_up_exec(&request.exec_id).await;
            }
            let target = tasks.target(&request.id, &request.exec_id)?;
            let deleted = tasks.delete(target).await;
            service.note_if_empty();
            deleted
        })
        .await;
        let (process, exited) = reply::joined(deleted)?;
        Ok(reply::delete(process, exited))
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> TtrpcResult<api::PidsResponse> {
        let task = self
            .tasks
            .find(&request.id)
            .map_err(|error| reply::error(&error))?;
        reply::pids(&task).map_err(|error| reply::error(&error))
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> TtrpcResult<api::ConnectResponse> {
        // It is how containerd finds out that a shim is alive, so it never fails.
        let found = self.tasks.find(&request.id).ok();
        let process = found.and_then(|task| task.process.state().process());
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: reply::pid(process),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownRequest,
    ) -> TtrpcResult<api::Empty> {
        self.tasks.release(&request.id);
        let service = self.clone();
        let ended = tokio::spawn(async move {
            service.tasks.give_up(&request.id).await;
            service.ask_to_shut_down();
            Ok(())
        })
        .await;
        reply::joined(ended)?;
        Ok(api::Empty::new())
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> TtrpcResult<api::StatsResponse> {
        let task = self
            .tasks
            .find(&request.id)
            .map_err(|error| reply::error(&error))?;
        reply::stats(&task).map_err(|error| reply::error(&error))
    }

    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> TtrpcResult<api::Empty> {
        let target = self.target(&request.id, &request.exec_id)?;
        if request.stdin {
            target.process().io.close_stdin();
        }
        Ok(api::Empty::new())
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> TtrpcResult<api::Empty> {
        let tasks = Arc::clone(&self.tasks);
        let paused = tokio::spawn(async move { tasks.pause(&request.id).await }).await;
        reply::joined(paused)?;
        Ok(api::Empty::new())
    }

    async fn resume(
        &self,
        _: &TtrpcContext,
        request: api::ResumeRequest,
    ) -> TtrpcResult<api::Empty> {
        let tasks = Arc::clone(&self.tasks);
        let resumed = tokio::spawn(async move { tasks.resume(&request.id).await }).await;
        reply::joined(resumed)?;
        Ok(api::Empty::new())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        _: api::CheckpointTaskRequest,
    ) -> TtrpcResult<api::Empty> {
        unsupported("checkpoint")
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: api::ExecProcessRequest,
    ) -> TtrpcResult<api::Empty> {
        let added = self
            .tasks
            .find(&request.id)
            .and_then(|task| task.add_exec(&request));
        added.map_err(|error| reply::error(&error))?;
        Ok(api::Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> TtrpcResult<api::Empty> {
        let target = self.target(&request.id, &request.exec_id)?;
        let resized = target.process().resize(request.width, request.height);
        resized.map_err(|error| reply::error(&error))?;
        Ok(api::Empty::new())
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> TtrpcResult<api::Empty> {
        let tasks = Arc::clone(&self.tasks);
        let updated = tokio::spawn(async move { tasks.update(request).await }).await;
        reply::joined(updated)?;
        Ok(api::Empty::new())
    }
}
