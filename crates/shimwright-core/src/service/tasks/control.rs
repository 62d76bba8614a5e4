//! What is done to a container as a whole while it runs: pausing it, changing its limits, and
//! noticing that it has run out of memory.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::UpdateTaskRequest;
use containerd_shim_protos::events::task::{TaskOOM, TaskPaused, TaskResumed};
use containerd_shim_protos::topics;
use oci_spec::runtime::LinuxResources;

use super::{Task, Tasks};
use crate::cgroup::freezer::Freezer;
use crate::container::update;
use crate::error::{Context, Error};
use crate::service::state::State;

/// How long a container may take to freeze. A client has no deadline of its own here, and most
/// freeze within a millisecond.
const FREEZE_BOUND: Duration = Duration::from_secs(5);

/// How many reports of missing memory may wait for containerd for each task: it may be away while
/// a container keeps losing processes.
const WAITING_REPORTS: usize = 8;

impl Tasks {
    /// Freezes every process of a task.
    pub(in super::super) async fn pause(&self, id: &str) -> Result<(), Error> {
        let task = self.find(id)?;
        let _changing = task.changing.write().await;
        task.pause().await
    }

    /// Lets the processes of a paused task go on.
    pub(in super::super) async fn resume(&self, id: &str) -> Result<(), Error> {
        let task = self.find(id)?;
        let _changing = task.changing.write().await;
        task.resume()
    }

    /// Changes the limits of a task.
    pub(in super::super) async fn update(&self, request: UpdateTaskRequest) -> Result<(), Error> {
        let task = self.find(&request.id)?;
        let resources = resources(&request)?;
        let _changing = task.changing.write().await;
        task.update(&resources).await
    }
}

impl Task {
    async fn pause(&self) -> Result<(), Error> {
        let freezer = self.freezer("pause")?;
        self.change(State::pausing)?;
        let mut state = self.state.subscribe();
        let frozen = tokio::select! {
            frozen = freezer.freeze(FREEZE_BOUND) => frozen.context("freeze the container"),
            // It has ended, or was killed and thawed for that: nobody may freeze it again.
            _ = state.wait_for(|state| !matches!(state, State::Pausing { .. })) => Ok(()),
        };
        let paused = frozen.and_then(|()| self.change(State::paused));
        if paused.is_err() {
            self.thaw();
            return paused;
        }
        let event = TaskPaused {
            container_id: self.id.clone(),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_PAUSED_EVENT_TOPIC, &event);
        Ok(())
    }

    fn resume(&self) -> Result<(), Error> {
        self.state().resumable()?;
        let freezer = self.freezer("resume")?;
        freezer.thaw().context("thaw the container")?;
        self.state.send_if_modified(State::thawed);
        let event = TaskResumed {
            container_id: self.id.clone(),
            ..Default::default()
        };
        self.shared
            .events
            .publish(topics::TASK_RESUMED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Thaws what is or is being frozen, without telling anybody: a frozen process of version 1
    /// does not even end when it is killed (`freezer-subsystem.rst`).
    pub(super) fn thaw(&self) {
        self.state.send_if_modified(State::thawed);
        self.cgroups().thaw();
    }

    /// Thaws a task that has been killed.
    pub(super) fn thaw_to_end(&self) {
        if matches!(self.state(), State::Pausing { .. } | State::Paused { .. }) {
            self.thaw();
        }
    }

    fn freezer(&self, operation: &str) -> Result<Freezer, Error> {
        Freezer::of(&self.cgroups()).ok_or_else(|| Error::NotSupported {
            operation: format!("{operation} on a machine without a freezer"),
        })
    }

    async fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.state().updatable()?;
        let cgroups = self.cgroups();
        let launcher = self.launch(|| update::update(&self.bundle, &cgroups, resources))?;
        launcher.reply().await
    }

    /// Reports missing memory until the task has ended.
    pub(super) async fn watch_memory(self: Arc<Self>) {
        let Some(oom) = self.sandbox.get().and_then(|sandbox| sandbox.oom.as_ref()) else {
            return;
        };
        let watching = async {
            match oom.notice() {
                Ok(notice) => oom.watch(notice, |kills| self.publish_oom(kills)).await,
                Err(error) => error,
            }
        };
        let error = tokio::select! {
            _ = self.exit() => return,
            error = watching => error,
        };
        // What is killed meanwhile is reported when the task ends.
        tracing::warn!(%error, id = self.id, "cannot wait for missing memory");
        self.exit().await;
    }

    /// Reports what has not been reported yet: the notice may come later than the end, or never.
    pub(super) fn report_oom(&self) {
        let oom = self.sandbox.get().and_then(|sandbox| sandbox.oom.as_ref());
        if let Some(oom) = oom {
            self.publish_oom(oom.kills());
        }
    }

    fn publish_oom(&self, kills: u64) {
        let event = TaskOOM {
            container_id: self.id.clone(),
            ..Default::default()
        };
        for _ in 0..kills.min(WAITING_REPORTS as u64) {
            let topic = topics::TASK_OOM_EVENT_TOPIC;
            self.shared
                .events
                .publish_at_most(WAITING_REPORTS, topic, &event);
        }
    }
}

/// The limits of a request: the JSON of the OCI runtime spec (containerd, `client/task.go`).
fn resources(request: &UpdateTaskRequest) -> Result<LinuxResources, Error> {
    let kind = request.resources.type_url.rsplit('/').next();
    if kind != Some("LinuxResources") {
        let kind = &request.resources.type_url;
        return Err(Error::invalid(format!(
            "resources: {kind:?} is not LinuxResources"
        )));
    }
    serde_json::from_slice(&request.resources.value)
        .map_err(|error| Error::invalid(format!("resources: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::MessageField;
    use containerd_shim_protos::protobuf::well_known_types::any::Any;

    fn request(kind: &str, value: &str) -> UpdateTaskRequest {
        UpdateTaskRequest {
            resources: MessageField::some(Any {
                type_url: kind.to_owned(),
                value: value.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn resources_are_those_of_the_spec_and_errors_name_the_place() {
        let kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let found = resources(&request(kind, r#"{"pids":{"limit":5}}"#)).unwrap();
        assert_eq!(found.pids().unwrap().limit(), 5);
        let cases = [
            (kind, r#"{"pids":{"limit":"x"}}"#, "line 1 column"),
            (kind, "", "resources: "),
            ("a/WindowsResources", "{}", "WindowsResources"),
        ];
        for (kind, value, reason) in cases {
            let error = resources(&request(kind, value)).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }));
            assert!(error.to_string().contains(reason), "{error}");
        }
        resources(&UpdateTaskRequest::default()).unwrap_err();
    }
}
