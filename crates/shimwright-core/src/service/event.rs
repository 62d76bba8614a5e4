//! The events that containerd receives: one function for each.

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message, MessageField};
use containerd_shim_protos::topics;

use super::reply::{pid, timestamp};
use super::state::Exited;
use crate::config::identity::ProcessId;

/// How many OOM events of a task may wait: containerd may be away while a container keeps losing
/// processes.
pub(super) const WAITING_REPORTS: usize = 8;

/// An event of a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Created(TaskCreate),
    Started(TaskStart),
    ExecAdded(TaskExecAdded),
    ExecStarted(TaskExecStarted),
    Paused(TaskPaused),
    Resumed(TaskResumed),
    OutOfMemory(TaskOOM),
    Exited(TaskExit),
    Deleted(TaskDelete),
}

impl Event {
    pub(super) fn created(request: &CreateTaskRequest, process: ProcessId) -> Self {
        Self::Created(TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: MessageField::some(TaskIO {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
                ..Default::default()
            }),
            pid: pid(Some(process)),
            ..Default::default()
        })
    }

    pub(super) fn started(container: &str, process: ProcessId) -> Self {
        Self::Started(TaskStart {
            container_id: container.to_owned(),
            pid: pid(Some(process)),
            ..Default::default()
        })
    }

    pub(super) fn exec_added(container: &str, exec: &str) -> Self {
        Self::ExecAdded(TaskExecAdded {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            ..Default::default()
        })
    }

    pub(super) fn exec_started(container: &str, exec: &str, process: ProcessId) -> Self {
        Self::ExecStarted(TaskExecStarted {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            pid: pid(Some(process)),
            ..Default::default()
        })
    }

    pub(super) fn paused(container: &str) -> Self {
        Self::Paused(TaskPaused {
            container_id: container.to_owned(),
            ..Default::default()
        })
    }

    pub(super) fn resumed(container: &str) -> Self {
        Self::Resumed(TaskResumed {
            container_id: container.to_owned(),
            ..Default::default()
        })
    }

    /// A process was killed for lack of memory.
    pub(super) fn out_of_memory(container: &str) -> Self {
        Self::OutOfMemory(TaskOOM {
            container_id: container.to_owned(),
            ..Default::default()
        })
    }

    /// `id` is the id of the exec; for the first process it is the container's.
    pub(super) fn exited(container: &str, id: &str, process: ProcessId, exited: Exited) -> Self {
        Self::Exited(TaskExit {
            container_id: container.to_owned(),
            id: id.to_owned(),
            pid: pid(Some(process)),
            exit_status: exited.status.into(),
            exited_at: timestamp(exited.at),
            ..Default::default()
        })
    }

    pub(super) fn deleted(container: &str, process: ProcessId, exited: Exited) -> Self {
        Self::Deleted(TaskDelete {
            container_id: container.to_owned(),
            pid: pid(Some(process)),
            exit_status: exited.status.into(),
            exited_at: timestamp(exited.at),
            ..Default::default()
        })
    }

    pub(super) fn topic(&self) -> &'static str {
        match self {
            Self::Created(_) => topics::TASK_CREATE_EVENT_TOPIC,
            Self::Started(_) => topics::TASK_START_EVENT_TOPIC,
            Self::ExecAdded(_) => topics::TASK_EXEC_ADDED_EVENT_TOPIC,
            Self::ExecStarted(_) => topics::TASK_EXEC_STARTED_EVENT_TOPIC,
            Self::Paused(_) => topics::TASK_PAUSED_EVENT_TOPIC,
            Self::Resumed(_) => topics::TASK_RESUMED_EVENT_TOPIC,
            Self::OutOfMemory(_) => topics::TASK_OOM_EVENT_TOPIC,
            Self::Exited(_) => topics::TASK_EXIT_EVENT_TOPIC,
            Self::Deleted(_) => topics::TASK_DELETE_EVENT_TOPIC,
        }
    }

    pub(super) fn encode(&self) -> protobuf::Result<Any> {
        match self {
            Self::Created(content) => any(content),
            Self::Started(content) => any(content),
            Self::ExecAdded(content) => any(content),
            Self::ExecStarted(content) => any(content),
            Self::Paused(content) => any(content),
            Self::Resumed(content) => any(content),
            Self::OutOfMemory(content) => any(content),
            Self::Exited(content) => any(content),
            Self::Deleted(content) => any(content),
        }
    }

    /// How many equal events may wait. Only events that no call of containerd causes need a bound.
    pub(super) fn most(&self) -> Option<usize> {
        matches!(self, Self::OutOfMemory(_)).then_some(WAITING_REPORTS)
    }
}

fn any<M: Message>(content: &M) -> protobuf::Result<Any> {
    Ok(Any {
        type_url: type_url::<M>(),
        value: content.write_to_bytes()?,
        ..Any::default()
    })
}

/// containerd knows events by their bare names.
///
/// Put together, as the message's descriptor is all descriptors of its file and of those it
/// imports, which would stay in memory.
fn type_url<M: Message>() -> String {
    format!("containerd.events.{}", M::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::protobuf::MessageFull;

    #[test]
    fn names_are_those_of_the_descriptors() {
        fn check<M: MessageFull>() {
            assert_eq!(type_url::<M>(), M::descriptor().full_name());
        }
        check::<TaskCreate>();
        check::<TaskStart>();
        check::<TaskExit>();
        check::<TaskDelete>();
        check::<TaskExecAdded>();
        check::<TaskExecStarted>();
        check::<TaskOOM>();
        check::<TaskPaused>();
        check::<TaskResumed>();
    }
}
