//! What is done to a container as a whole while it runs: pausing it, changing its limits, and
//! noticing that it has run out of memory.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::UpdateTaskRequest;
use oci_spec::runtime::LinuxResources;

use super::event::{Event, WAITING_REPORTS};
use super::state::State;
use super::task::Task;
use super::tasks::Tasks;
use crate::cgroup::freezer::Freezer;
use crate::cgroup::oom::Oom;
use crate::container::update;
use crate::error::{Context, Error};

/// How long a container may take to freeze. A client has no deadline of its own here, and most
/// freeze within a millisecond.
const FREEZE_BOUND: Duration = Duration::from_secs(5);

impl Tasks {
    /// Freezes every process of a task.
    pub(super) async fn pause(&self, id: &str) -> Result<(), Error> {
        let task = self.find(id)?;
        let _changing = task.changing.write().await;
        task.pause().await
    }

    /// Lets the processes of a paused task go on.
    pub(super) async fn resume(&self, id: &str) -> Result<(), Error> {
        let task = self.find(id)?;
        let _changing = task.changing.write().await;
        task.resume()
    }

    /// Changes the limits of a task.
    pub(super) async fn update(&self, request: UpdateTaskRequest) -> Result<(), Error> {
        let task = self.find(&request.id)?;
        let resources = resources(&request)?;
        let _changing = task.changing.write().await;
        task.update(&resources).await
    }
}

impl Task {
    async fn pause(&self) -> Result<(), Error> {
        let freezer = self.freezer("pause")?;
        self.process.change(State::pausing)?;
        let mut state = self.process.subscribe();
        let frozen = tokio::select! {
            frozen = freezer.freeze(FREEZE_BOUND) => frozen.context("freeze the container"),
            // It has ended, or was killed and thawed for that: nobody may freeze it again.
            _ = state.wait_for(|state| !matches!(state, State::Pausing { .. })) => Ok(()),
        };
        let paused = frozen.and_then(|()| self.process.change(State::paused));
        if paused.is_err() {
            self.thaw();
        }
        paused
    }

    fn resume(&self) -> Result<(), Error> {
        self.process.state().resumable(&self.process.name)?;
        let freezer = self.freezer("resume")?;
        freezer.thaw().context("thaw the container")?;
        self.process.change(State::resumed)
    }

    /// Thaws what is or is being frozen, without telling anybody: a frozen process of version 1
    /// does not even end when it is killed (`freezer-subsystem.rst`).
    fn thaw(&self) {
        self.process.thawed();
        self.cgroups().thaw();
    }

    /// Thaws a task that has been killed.
    pub(super) fn thaw_to_end(&self) {
        if matches!(
            self.process.state(),
            State::Pausing { .. } | State::Paused { .. }
        ) {
            self.thaw();
        }
    }

    fn freezer(&self, operation: &str) -> Result<Freezer, Error> {
        Freezer::of(&self.cgroups()).ok_or_else(|| Error::NotSupported {
            operation: format!("{operation} on a machine without a freezer"),
        })
    }

    async fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.process.state().updatable(&self.process.name)?;
        let cgroups = self.cgroups();
        let launcher = self.launch(|| update::update(&self.bundle, &cgroups, resources))?;
        launcher.reply().await
    }

    /// Reports missing memory until the task has ended.
    pub(super) async fn watch_memory(self: Arc<Self>) {
        let Some(oom) = self.oom() else {
            return;
        };
        let watching = async {
            match oom.notice() {
                Ok(notice) => oom.watch(notice, |kills| self.publish_oom(kills)).await,
                Err(error) => error,
            }
        };
        let error = tokio::select! {
            _ = self.process.exit() => return,
            error = watching => error,
        };
        // What is killed meanwhile is reported when the task ends.
        tracing::warn!(%error, id = self.id(), "cannot wait for missing memory");
        self.process.exit().await;
    }

    /// Reports what has not been reported yet: the notice may come later than the end, or never.
    pub(super) fn report_oom(&self) {
        if let Some(oom) = self.oom() {
            self.publish_oom(oom.kills());
        }
    }

    fn oom(&self) -> Option<&Oom> {
        self.sandbox().ok()?.oom.as_ref()
    }

    fn publish_oom(&self, kills: u64) {
        for _ in 0..kills.min(WAITING_REPORTS as u64) {
            self.shared.events.publish(&Event::out_of_memory(self.id()));
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
