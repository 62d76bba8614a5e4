//! Our types as messages of the protocol.

use std::os::fd::AsFd;
use std::time::SystemTime;

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim_protos::ttrpc::{self, Code as RpcCode};
use containerd_shim_protos::types::task::{ProcessInfo, Status as ApiStatus};
use tokio::task::JoinError;

use super::tasks::Task;
use crate::bundle::Init;
use crate::error::{self, Code, Error};
use crate::metrics;
use crate::task::{Exited, State};

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

pub(super) fn pid(init: Option<Init>) -> u32 {
    init.map_or(0, |init| init.pid.unsigned_abs())
}

pub(super) fn state(task: &Task) -> api::StateResponse {
    let state = task.state();
    let status = match state {
        State::Creating => ApiStatus::UNKNOWN,
        State::Created { .. } => ApiStatus::CREATED,
        State::Running { .. } => ApiStatus::RUNNING,
        State::Stopped { .. } => ApiStatus::STOPPED,
    };
    let paths = &task.streams;
    api::StateResponse {
        id: task.id.clone(),
        bundle: task.bundle.directory().to_string_lossy().into_owned(),
        pid: pid(state.init()),
        status: EnumOrUnknown::new(status),
        stdin: paths.stdin.clone(),
        stdout: paths.stdout.clone(),
        stderr: paths.stderr.clone(),
        terminal: false,
        exit_status: state.exited().map_or(0, |exited| exited.status.into()),
        exited_at: state
            .exited()
            .map_or(MessageField::none(), |exited| timestamp(exited.at)),
        ..Default::default()
    }
}

pub(super) fn wait(exited: Exited) -> api::WaitResponse {
    api::WaitResponse {
        exit_status: exited.status.into(),
        exited_at: timestamp(exited.at),
        ..Default::default()
    }
}

pub(super) fn delete(init: Init, exited: Exited) -> api::DeleteResponse {
    api::DeleteResponse {
        pid: pid(Some(init)),
        exit_status: exited.status.into(),
        exited_at: timestamp(exited.at),
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
    if let Some(init) = task.state().init()
        && !pids.contains(&init.pid.unsigned_abs())
    {
        pids.insert(0, init.pid.unsigned_abs());
    }
    let processes = pids
        .into_iter()
        .map(|pid| ProcessInfo {
            pid,
            ..Default::default()
        })
        .collect();
    Ok(api::PidsResponse {
        processes,
        ..Default::default()
    })
}

pub(super) fn stats(task: &Task) -> Result<api::StatsResponse, Error> {
    let metrics = metrics::read(&task.cgroups()).ok_or_else(|| Error::NotFound {
        id: format!("{}'s control group", task.id),
    })?;
    Ok(api::StatsResponse {
        stats: MessageField::some(metrics),
        ..Default::default()
    })
}

/// Whether the process behind a handle can still be signalled.
pub(super) fn send_signal(handle: impl AsFd, signal: u32) -> Result<(), Error> {
    let Some(signal) = i32::try_from(signal)
        .ok()
        .filter(|signal| (0..=64).contains(signal))
    else {
        return Err(Error::invalid(format!("unknown signal {signal}")));
    };
    crate::sys::pidfd_send_signal(handle, signal).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => Error::Finished,
        _ => Error::Failed {
            action: format!("send signal {signal}"),
            source: error.into(),
        },
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
