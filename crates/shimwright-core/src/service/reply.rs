//! Our types as messages of the Task API.

use std::time::SystemTime;

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::ttrpc::{self, Code as RpcCode};
use containerd_shim_protos::types::task::{ProcessInfo, Status as ApiStatus};
use tokio::task::JoinError;

use super::state::{Exited, State};
use super::task::Task;
use super::tasks::Target;
use crate::cgroup::stats;
use crate::config::identity::ProcessId;
use crate::error::{self, Code, Error};

/// The only conversion to an error of the protocol: the whole chain, once.
pub(super) fn error(error: &Error) -> ttrpc::Error {
    let code = match error.code() {
        Code::InvalidArgument => RpcCode::INVALID_ARGUMENT,
        Code::NotFound => RpcCode::NOT_FOUND,
        Code::AlreadyExists => RpcCode::ALREADY_EXISTS,
        Code::FailedPrecondition => RpcCode::FAILED_PRECONDITION,
        Code::Unimplemented => RpcCode::UNIMPLEMENTED,
        Code::Internal => RpcCode::INTERNAL,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error::chain(error)))
}

/// The outcome of work that was done in a task of its own. A panic there fails this call only.
pub(super) fn joined<T>(outcome: Result<Result<T, Error>, JoinError>) -> ttrpc::Result<T> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(self::error(&error)),
        Err(_) => Err(self::error(&Error::Failed {
            action: "finish the request".to_owned(),
            source: "the shim panicked".into(),
        })),
    }
}

pub(super) fn timestamp(at: SystemTime) -> MessageField<Timestamp> {
    MessageField::some(at.into())
}

pub(super) fn pid(init: Option<ProcessId>) -> u32 {
    init.map_or(0, |init| init.pid.unsigned_abs())
}

pub(super) fn state(target: &Target) -> api::StateResponse {
    let process = target.process();
    let state = process.state();
    let paths = &process.io.paths;
    api::StateResponse {
        id: process.id().to_owned(),
        exec_id: process.name.exec.clone().unwrap_or_default(),
        bundle: target
            .task
            .bundle
            .directory()
            .to_string_lossy()
            .into_owned(),
        pid: pid(state.process()),
        status: EnumOrUnknown::new(status(state)),
        exit_status: state.exited().map_or(0, |exited| exited.status.into()),
        exited_at: exited_at(state.exited()),
        stdin: paths.stdin.clone(),
        stdout: paths.stdout.clone(),
        stderr: paths.stderr.clone(),
        terminal: paths.terminal,
        ..Default::default()
    }
}

/// An exec that is being started is created for containerd. A task that is being created is not
/// found, so nobody sees its state.
fn status(state: State) -> ApiStatus {
    match state {
        State::Added | State::Creating | State::Created { .. } => ApiStatus::CREATED,
        State::Running { .. } => ApiStatus::RUNNING,
        State::Pausing { .. } => ApiStatus::PAUSING,
        State::Paused { .. } => ApiStatus::PAUSED,
        State::Stopped { .. } => ApiStatus::STOPPED,
    }
}

fn exited_at(exited: Option<Exited>) -> MessageField<Timestamp> {
    exited.map_or(MessageField::none(), |exited| timestamp(exited.at))
}

pub(super) fn wait(exited: Exited) -> api::WaitResponse {
    api::WaitResponse {
        exit_status: exited.status.into(),
        exited_at: timestamp(exited.at),
        ..Default::default()
    }
}

pub(super) fn delete(process: Option<ProcessId>, exited: Option<Exited>) -> api::DeleteResponse {
    api::DeleteResponse {
        pid: pid(process),
        exit_status: exited.map_or(0, |exited| exited.status.into()),
        exited_at: exited_at(exited),
        ..Default::default()
    }
}

/// Every process of the container, and at least its first: containerd takes an empty list for a
/// sign that the task is lost (containerd, `shim_load.go`).
pub(super) fn pids(task: &Task) -> Result<api::PidsResponse, Error> {
    use crate::error::Context;
    let mut pids: Vec<u32> = task
        .cgroups()
        .processes()
        .context("list the container's processes")?
        .into_iter()
        .map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
        .collect();
    if let Some(init) = task.process.state().process()
        && !pids.contains(&init.pid.unsigned_abs())
    {
        pids.insert(0, init.pid.unsigned_abs());
    }
    let execs = task.exec_pids();
    let processes = pids
        .into_iter()
        .map(|pid| ProcessInfo {
            pid,
            info: match execs.get(&pid) {
                Some(exec) => details(exec),
                None => MessageField::none(),
            },
            ..Default::default()
        })
        .collect();
    Ok(api::PidsResponse {
        processes,
        ..Default::default()
    })
}

/// What the runc shim says about a process that belongs to an exec.
fn details(exec: &str) -> MessageField<Any> {
    let details = ProcessDetails {
        exec_id: exec.to_owned(),
        ..Default::default()
    };
    match details.write_to_bytes() {
        Ok(value) => MessageField::some(Any {
            type_url: "containerd.runc.v1.ProcessDetails".to_owned(),
            value,
            ..Default::default()
        }),
        // It would not fit into memory.
        Err(_) => MessageField::none(),
    }
}

pub(super) fn stats(task: &Task) -> Result<api::StatsResponse, Error> {
    let metrics = stats::read(&task.cgroups()).ok_or_else(|| Error::NotFound {
        id: format!("{}'s control group", task.id()),
    })?;
    Ok(api::StatsResponse {
        stats: MessageField::some(metrics),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_sees_the_code_and_the_whole_reason() {
        let inner = Error::NotSupported {
            operation: "exec".to_owned(),
        };
        let ttrpc::Error::RpcStatus(status) = error(&inner) else {
            panic!("no status")
        };
        assert_eq!(status.code(), RpcCode::UNIMPLEMENTED);
        assert_eq!(status.message, "exec is not supported");
    }
}
