//! Why an operation on a task failed, and what containerd is told.

use crate::engine::{BoxError, Refusal};

/// The kinds of failure a client can tell apart: the status codes of gRPC that containerd
/// clients look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Code {
    InvalidArgument,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    Unimplemented,
    Internal,
}

/// Why an operation on a task failed.
///
/// `Display` prints this level only; [`chain`] prints all of it, once, at the RPC boundary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("task {id} already exists")]
    AlreadyExists { id: String },
    #[error("cannot {action} {what} that is {state}")]
    InvalidState {
        action: &'static str,
        what: &'static str,
        state: &'static str,
    },
    #[error("process already finished")]
    Finished,
    #[error("{what}")]
    Invalid { what: String },
    #[error("task {id} not found")]
    NotFound { id: String },
    #[error("exec {exec} of task {id} not found")]
    ExecNotFound { id: String, exec: String },
    #[error("exec {exec} of task {id} already exists")]
    ExecExists { id: String, exec: String },
    #[error("{operation} is not supported")]
    NotSupported { operation: String },
    #[error("{engine} refused the workload")]
    Refused {
        engine: &'static str,
        #[source]
        source: Refusal,
    },
    #[error("cannot {action}")]
    Failed {
        action: String,
        #[source]
        source: BoxError,
    },
    /// An error of another process of the shim, which has been formatted there.
    #[error("{message}")]
    Remote { code: Code, message: String },
}

impl Error {
    /// The status code containerd sees. No wildcard arm: a new kind must choose.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::AlreadyExists { .. } | Self::ExecExists { .. } => Code::AlreadyExists,
            Self::InvalidState { .. } => Code::FailedPrecondition,
            Self::Invalid { .. } | Self::Refused { .. } => Code::InvalidArgument,
            Self::NotFound { .. } | Self::ExecNotFound { .. } | Self::Finished => Code::NotFound,
            Self::NotSupported { .. } => Code::Unimplemented,
            Self::Failed { .. } => Code::Internal,
            Self::Remote { code, .. } => *code,
        }
    }

    /// A request or a file that says something impossible.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}

/// The message of an error and of all its causes, joined by `: `.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let level = error.to_string();
        // Some libraries print their source themselves: say it once.
        if !text.ends_with(&level) {
            text.push_str(": ");
            text.push_str(&level);
        }
        cause = error.source();
    }
    text
}

/// Says what was being done when an operation failed.
pub(crate) trait Context<T> {
    /// Turns the error into [`Error::Failed`]: "cannot `action`".
    fn context(self, action: impl Into<String>) -> Result<T, Error>;
    /// As [`context`](Self::context), for text that costs something to make.
    fn with_context(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<BoxError>> Context<T> for Result<T, E> {
    fn context(self, action: impl Into<String>) -> Result<T, Error> {
        self.map_err(|error| Error::Failed {
            action: action.into(),
            source: error.into(),
        })
    }

    fn with_context(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Failed {
            action: action(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_each_level_once() {
        let source = std::io::Error::from_raw_os_error(2);
        let error = Err::<(), _>(source).context("open /nowhere").unwrap_err();
        assert_eq!(error.to_string(), "cannot open /nowhere");
        assert_eq!(
            chain(&error),
            "cannot open /nowhere: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_finished_process_is_not_found_as_clients_expect() {
        assert_eq!(Error::Finished.code(), Code::NotFound);
    }
}
