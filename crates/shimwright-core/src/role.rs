//! The roles in which our program executes itself, named by environment variables.
//!
//! Nobody outside can choose one: containerd passes an administrator's variables only, and a
//! guest's variables are never those of a process of ours.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::process::{ChildStderr, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::sys;

/// The longest reason that is passed on, in bytes.
const MAX_REASON: usize = 4096;

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
/// Set to the number of streams of a [copier](crate::stdio::copier).
pub(crate) const COPIER: &str = "SHIMWRIGHT_COPIER";
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
///
/// It is killed when `shim_alive` is hung up: nobody waits for its work any more, and cleaners take
/// seconds where compiling may take minutes. That is the read end of the shim's pipe.
pub(crate) fn run(
    mut command: Command,
    shim_alive: Option<BorrowedFd<'_>>,
) -> io::Result<Result<(), String>> {
    let mut child = command.spawn()?;
    let reason = match child.stderr.take() {
        Some(stderr) => read_reason(stderr, shim_alive)?,
        None => Some(String::new()),
    };
    let Some(reason) = reason else {
        child.kill()?;
        child.wait()?;
        return Ok(Err("the shim has ended".to_owned()));
    };
    let status = child.wait()?;
    if status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(match reason.trim() {
        "" => format!("it ended with {status}"),
        reason => reason.to_owned(),
    }))
}

/// What a child writes until its end, as far as it is kept; nothing if the shim ends first.
fn read_reason(
    mut stderr: ChildStderr,
    shim_alive: Option<BorrowedFd<'_>>,
) -> io::Result<Option<String>> {
    let mut reason = Vec::new();
    loop {
        // A hang-up is always told.
        let mut wanted = vec![PollFd::new(&stderr, PollFlags::IN)];
        wanted.extend(shim_alive.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::empty())));
        poll(&mut wanted, None)?;
        let ended = |wanted: &PollFd<'_>| wanted.revents().contains(PollFlags::HUP);
        if wanted.get(1).is_some_and(ended) {
            return Ok(None);
        }
        if wanted[0].revents().is_empty() {
            continue;
        }
        let mut part = [0; 512];
        let read = stderr.read(&mut part)?;
        if read == 0 {
            return Ok(Some(String::from_utf8_lossy(&reason).into_owned()));
        }
        // What is too long is read, so that its writer goes on, and dropped.
        let kept = read.min(MAX_REASON - reason.len());
        reason.extend(&part[..kept]);
    }
}
