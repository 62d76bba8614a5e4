//! The roles in which our program executes itself, named by environment variables.
//!
//! Nobody outside can choose a role: containerd passes only an administrator's variables, and our
//! processes never get a guest's variables.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::cgroup::Cgroups;
use crate::sys;

/// The longest reason that is passed on, in bytes.
const MAX_REASON: usize = 4096;

/// Set to the descriptor of the configuration of a [`runner`](crate::runner).
pub(crate) const RUNNER: &str = "SHIMWRIGHT_RUNNER";
/// Set, to nothing, for a [`compiler`](crate::code::compiler).
pub(crate) const COMPILER: &str = "SHIMWRIGHT_COMPILER";
/// Set, to nothing, for a [`planner`](crate::code::planner).
pub(crate) const PLANNER: &str = "SHIMWRIGHT_PLANNER";
/// Set to the descriptor of the listening socket of a [server](crate::shim::serve).
pub(crate) const SERVER: &str = "SHIMWRIGHT_SERVER";
/// Set, to nothing, for a server that all containers of a node share.
pub(crate) const SHARED: &str = "SHIMWRIGHT_SHARED";
/// Set, to nothing, for a [fetcher](crate::code::content).
pub(crate) const FETCHER: &str = "SHIMWRIGHT_FETCHER";
/// Set to the number of streams of a [copier](crate::stdio::copier).
pub(crate) const COPIER: &str = "SHIMWRIGHT_COPIER";
/// Set, for a runner with [shared libraries](crate::runner::libraries), to the descriptor of the working
/// directory that it is to have.
pub(crate) const WORKING_DIRECTORY: &str = "SHIMWRIGHT_WORKING_DIRECTORY";

/// A program of ours in a role, with no environment but that, to be [`run`] by a launcher and to
/// end with it. It joins these cgroups, and is the first to be killed when memory is short.
pub(crate) fn command(mut command: Command, role: &str, cgroups: Cgroups) -> Command {
    command.env_clear().env(role, "").stderr(Stdio::piped());
    sys::process::prepare_child(&mut command, move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        cgroups.join()?;
        std::fs::write("/proc/self/oom_score_adj", "1000")
    });
    command
}

/// How a [`command`] failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reason it gave on standard error, if any, and its status.
    Ended(String, ExitStatus),
    /// Nobody waits for its work any more: it was killed.
    Unwanted,
    /// It was killed because it took too long.
    TooLong,
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(reason, status) if reason.is_empty() => {
                write!(f, "it ended with {status}")
            }
            Self::Ended(reason, _) => f.write_str(reason),
            Self::Unwanted => f.write_str("nobody waits for it any more"),
            Self::TooLong => f.write_str("it took longer than compile.deadline"),
        }
    }
}

/// Runs a [`command`] to its end, as the first process of a pid namespace: whatever it may start
/// ends with it. The inner error is why it failed.
///
/// It is killed when `wanted` is hung up: nobody waits for its work any more, and cleaners take
/// seconds where compiling may take minutes. That is the read end of a pipe of the shim's.
pub(crate) fn run(
    mut command: Command,
    wanted: BorrowedFd<'_>,
    bound: Duration,
) -> io::Result<Result<(), Failure>> {
    let deadline = Instant::now() + bound;
    let mut child = spawn_in_pid_namespace(&mut command)?;
    let said = match child.stderr.take() {
        Some(stderr) => read_reason(stderr, wanted, deadline),
        None => Ok(Ok(String::new())),
    };
    let reason = match said {
        Ok(Ok(reason)) => reason,
        stopped => {
            child.kill()?;
            child.wait()?;
            return stopped.map(|stopped| stopped.map(drop));
        }
    };
    let status = child.wait()?;
    if status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(Failure::Ended(reason.trim().to_owned(), status)))
}

fn spawn_in_pid_namespace(command: &mut Command) -> io::Result<Child> {
    let outside = File::open("/proc/self/ns/pid_for_children")?;
    sys::process::unshare(UnshareFlags::NEWPID)?;
    let child = command.spawn();
    // What this launcher starts later is not to be in there.
    rustix::thread::move_into_link_name_space(outside.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    child
}

/// What a child writes until its end, as far as it is kept.
fn read_reason(
    mut stderr: ChildStderr,
    wanted: BorrowedFd<'_>,
    deadline: Instant,
) -> io::Result<Result<String, Failure>> {
    let mut reason = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(Failure::TooLong));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        // A hang-up is always told.
        let mut events = [
            PollFd::new(&stderr, PollFlags::IN),
            PollFd::from_borrowed_fd(wanted, PollFlags::empty()),
        ];
        match poll(&mut events, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if events[1].revents().contains(PollFlags::HUP) {
            return Ok(Err(Failure::Unwanted));
        }
        if events[0].revents().is_empty() {
            continue;
        }
        let mut part = [0; 512];
        let read = stderr.read(&mut part)?;
        if read == 0 {
            return Ok(Ok(String::from_utf8_lossy(&reason).into_owned()));
        }
        // What is too long is read, so that its writer goes on, and dropped.
        let kept = read.min(MAX_REASON - reason.len());
        reason.extend(&part[..kept]);
    }
}
