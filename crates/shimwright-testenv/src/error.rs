//! The one error of these commands: text for the person in front of the terminal.

use std::fmt;

/// What went wrong, and what to do about it where that is known.
#[derive(Debug)]
pub struct Error(String);

/// The outcome of a command.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(err: E) -> Self {
        let mut text = err.to_string();
        let mut source = err.source();
        while let Some(err) = source {
            text = format!("{text}: {err}");
            source = err.source();
        }
        Self(text)
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts `doing`, such as `read /etc/fstab`, in front of the error.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|err| Error(format!("cannot {doing}: {}", err.into())))
    }
}

/// An [`Error`] from a format string.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($arg:tt)*) => { $crate::error::Error::new(format!($($arg)*)) };
}

/// Returns an [`Error`] unless a condition holds.
#[doc(hidden)]
#[macro_export]
macro_rules! __ensure {
    ($condition:expr, $($arg:tt)*) => {
        if !$condition {
            return Err($crate::__error!($($arg)*));
        }
    };
}

#[doc(inline)]
pub use crate::{__ensure as ensure, __error as error};
