//! Errors of operations on tasks, and the status codes that containerd gets.

use std::borrow::Cow;

use crate::engine::{BoxError, Refusal};

/// The gRPC status codes that containerd's clients distinguish.
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
/// `Display` prints this level only. [`chain`] prints all levels, once, at the RPC boundary.
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
    /// An error that another process of the shim has formatted.
    #[error("{message}")]
    Remote { code: Code, message: String },
}

impl Error {
    /// The status code for containerd. No wildcard arm: each new kind must choose one.
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

    /// An invalid request or file.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }
}

/// Makes text of an image, a spec or a guest safe to show. Escapes control characters and characters
/// that change the direction of text, so that a name cannot move a terminal's cursor or forge a
/// line. Keeps everything else.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    // Unicode Standard Annex 9, table 4, and the two separators, which some programs treat as new
    // lines.
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            )
            || matches!(c, '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Joins the messages of an error and of its causes by `: `, safe to show.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    printable(&lines(error)).into_owned()
}

/// The same without escaping, for a caller that processes the text before it is shown.
pub(crate) fn lines(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let level = error.to_string();
        // Some libraries print their source themselves: print it once.
        if !text.ends_with(&level) {
            text.push_str(": ");
            text.push_str(&level);
        }
        cause = error.source();
    }
    text
}

/// Adds what was being done to the error of a failed operation.
pub(crate) trait Context<T> {
    /// Turns the error into [`Error::Failed`]: "cannot `action`".
    fn context(self, action: impl Into<String>) -> Result<T, Error>;
    /// Like [`context`](Self::context), for text that is expensive to build.
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
    fn what_steers_a_terminal_is_escaped_and_text_stays_readable() {
        for text in ["", "größe/größe.wasm", "日本語 'a\\b'", "👩‍💻"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
        let cases = [
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("a\r\nlevel=info\tb", "a\\r\\nlevel=info\\tb"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("gpj.\u{202e}exe\u{2066}", "gpj.\\u{202e}exe\\u{2066}"),
        ];
        for (text, shown) in cases {
            assert_eq!(printable(text), shown);
            // What was escaped in another process is not escaped again.
            assert_eq!(printable(shown), shown);
        }
        assert_eq!(chain(&Error::invalid("/a\nb")), "/a\\nb");
    }

    #[test]
    fn a_finished_process_is_not_found_as_clients_expect() {
        assert_eq!(Error::Finished.code(), Code::NotFound);
    }
}
