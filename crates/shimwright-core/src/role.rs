//! The roles in which our program executes itself, named by environment variables.
//!
//! Nobody outside can choose one: containerd passes an administrator's variables only, and a
//! guest's variables are never those of a process of ours.

use std::io::{self, Read};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::sys;

/// The longest reason that is passed on, in bytes.
const MAX_REASON: u64 = 4096;

/// Set to the descriptor of the orders of a [`runner`](crate::runner).
pub(crate) const RUNNER: &str = "SHIMWRIGHT_RUNNER";
/// Set, to nothing, for a [`compiler`](crate::compiler).
pub(crate) const COMPILER: &str = "SHIMWRIGHT_COMPILER";
/// Set to the descriptor of the listening socket of a [server](crate::shim::serve).
pub(crate) const SERVER: &str = "SHIMWRIGHT_SERVER";
/// Set, to nothing, for a server that all containers of a node share.
pub(crate) const SHARED: &str = "SHIMWRIGHT_SHARED";
/// Set, to nothing, for a [fetcher](crate::content).
pub(crate) const FETCHER: &str = "SHIMWRIGHT_FETCHER";
/// Set, for a runner with [shared libraries](crate::linked), to the descriptor of the working
/// directory that it is to have.
pub(crate) const WORKING_DIRECTORY: &str = "SHIMWRIGHT_WORKING_DIRECTORY";

/// A program of ours in a role, with no environment but that, to be [`run`] by a launcher and to
/// end with it.
pub(crate) fn command(mut command: Command, role: &str) -> Command {
    command.env_clear().env(role, "").stderr(Stdio::piped());
    sys::prepare_child(&mut command, || {
        Ok(rustix::process::set_parent_process_death_signal(Some(
            Signal::KILL,
        ))?)
    });
    command
}

/// Runs a [`command`] to its end. The inner error is the reason it gave on standard error.
pub(crate) fn run(mut command: Command) -> io::Result<Result<(), String>> {
    let mut child = command.spawn()?;
    let mut reason = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What is too long or no text is cut: the exit status decides.
        let _ = stderr.take(MAX_REASON).read_to_string(&mut reason);
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(match reason.trim() {
        "" => format!("it ended with {status}"),
        reason => reason.to_owned(),
    }))
}
