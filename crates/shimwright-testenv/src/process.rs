//! Child processes with deadlines: each in its own process group, which ends with the handle.
//!
//! Ctrl-C ends the wait for a child with an error, so that destructors run and clean up.

use std::collections::BTreeSet;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Context, Error, Result, ensure, error};

/// Readable from the moment an interrupt arrived; never read, so that it stays readable.
static INTERRUPT: OnceLock<UnixStream> = OnceLock::new();

/// Children that a [`Process`] will wait for; the others were left to us by their parents.
static SPAWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Turns SIGINT, SIGTERM and SIGHUP into errors of whatever waits for a child.
pub fn catch_interrupts() -> Result<()> {
    const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];
    let (reader, writer) = UnixStream::pair()?;
    for signal in SIGNALS {
        signal_hook::low_level::pipe::register(signal.as_raw(), writer.try_clone()?)?;
    }
    INTERRUPT
        .set(reader)
        .map_err(|_| error!("interrupts are already caught"))
}

/// Fails if the user wants to stop.
pub fn check_interrupt() -> Result<()> {
    match wait_readable(&[], Instant::now())? {
        Ready::Interrupt => Err(interrupted()),
        Ready::Other | Ready::Nothing => Ok(()),
    }
}

/// Sleeps, unless interrupted. Only for polling what has no event to wait for.
pub fn pause(duration: Duration) -> Result<()> {
    match wait_readable(&[], Instant::now() + duration)? {
        Ready::Interrupt => Err(interrupted()),
        Ready::Other | Ready::Nothing => Ok(()),
    }
}

/// Polls until `condition` holds. Each caller says why there is no event to wait for.
pub fn poll_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !condition()? {
        ensure!(
            Instant::now() < end,
            "{what} did not happen within {deadline:?}"
        );
        pause(Duration::from_millis(20))?;
    }
    Ok(())
}

/// Waits for a process that need not be our child to end.
pub fn wait_for_end_of(pid: i32, deadline: Duration) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Err(error!("{pid} is no process id"));
    };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    match wait_readable(
        &[PollFd::new(&pidfd, PollFlags::IN)],
        Instant::now() + deadline,
    )? {
        Ready::Other => Ok(()),
        Ready::Interrupt => Err(interrupted()),
        Ready::Nothing => Err(error!("process {pid:?} has not ended within {deadline:?}")),
    }
}

/// Whether a process is one of ours that somebody waits for.
pub fn is_spawned(pid: i32) -> bool {
    spawned().contains(&pid)
}

fn spawned() -> MutexGuard<'static, BTreeSet<i32>> {
    SPAWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupted() -> Error {
    Error::new("interrupted")
}

enum Ready {
    Interrupt,
    Other,
    Nothing,
}

/// Waits for an interrupt, for one of `fds`, or for `end`.
fn wait_readable(fds: &[PollFd<'_>], end: Instant) -> Result<Ready> {
    let mut fds = fds.to_vec();
    let interrupt = INTERRUPT.get();
    fds.extend(interrupt.map(|stream| PollFd::new(stream, PollFlags::IN)));
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| error!("{left:?} is too long"))?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(Ready::Nothing),
            Ok(_) => {
                let last = fds.last().is_some_and(|fd| !fd.revents().is_empty());
                return Ok(if interrupt.is_some() && last {
                    Ready::Interrupt
                } else {
                    Ready::Other
                });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Finished {
    what: String,
    /// The exit code, or 128 plus the signal.
    pub code: i32,
    /// What it wrote to stdout, if that was kept.
    pub stdout: String,
    /// The same of stderr.
    pub stderr: String,
}

impl Finished {
    /// What the command wrote to stdout, if it succeeded.
    pub fn success(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        let Self {
            what,
            code,
            stdout,
            stderr,
        } = self;
        Err(error!(
            "`{what}` ended with {code}: {}{}",
            stderr.trim(),
            stdout.trim()
        ))
    }
}

/// A running child and what it has written so far.
pub struct Process {
    child: Child,
    what: String,
    stdout: Option<Captured>,
    stderr: Option<Captured>,
}

impl Process {
    /// Starts a command whose output is kept.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn_as_is(command)
    }

    /// The same with something on its standard input, which must fit into a pipe.
    pub fn spawn_with_input(command: Command, input: &str) -> Result<Self> {
        Ok(Self::spawn_with_open_input(command, input)?.0)
    }

    /// The same; the input ends when the second part is dropped.
    pub fn spawn_with_open_input(mut command: Command, input: &str) -> Result<(Self, PipeWriter)> {
        let (reader, mut writer) = std::io::pipe()?;
        writer.write_all(input.as_bytes())?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok((Self::start(command, Stdio::from(reader))?, writer))
    }

    /// Starts a command whose output goes where `command` says.
    pub fn spawn_as_is(command: Command) -> Result<Self> {
        Self::start(command, Stdio::null())
    }

    fn start(mut command: Command, stdin: Stdio) -> Result<Self> {
        check_interrupt()?;
        let what = describe(&command);
        // Its own group, so that it can be killed with all its children, and so that Ctrl-C
        // reaches us alone: we decide what ends in which order.
        command.stdin(stdin).process_group(0);
        let mut registered = spawned();
        let mut child = command.spawn().context(format_args!("run `{what}`"))?;
        registered.insert(Pid::from_child(&child).as_raw_pid());
        drop(registered);
        let stdout = child.stdout.take().map(Captured::start);
        let stderr = child.stderr.take().map(Captured::start);
        Ok(Self {
            child,
            what,
            stdout,
            stderr,
        })
    }

    /// The process id of the child.
    pub fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_pid()
    }

    /// Waits until the child has written `text` to stdout.
    pub fn wait_for_output(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let stdout = self
            .stdout
            .as_ref()
            .ok_or_else(|| error!("stdout is not captured"))?;
        let end = Instant::now() + deadline;
        loop {
            // Short waits, because a condition variable and an interrupt cannot be awaited at once.
            if stdout.wait(Duration::from_millis(100), |state| state.contains(text)) {
                return Ok(());
            }
            check_interrupt()?;
            let ended = stdout.wait(Duration::ZERO, |state| state.ended);
            ensure!(
                !ended && Instant::now() < end,
                "`{}` has not written {text:?} {}; stdout {:?}, stderr {:?}",
                self.what,
                if ended {
                    "before it ended".to_owned()
                } else {
                    format!("within {deadline:?}")
                },
                stdout.text(),
                self.stderr.as_ref().map(Captured::text).unwrap_or_default()
            );
        }
    }

    /// Waits for the end.
    pub fn finish(self, deadline: Duration) -> Result<Finished> {
        self.await_end(deadline)?;
        self.finished()
    }

    /// The same for a child that cleans up when it is asked to end: it has `grace` for that after
    /// an interrupt, or when the deadline has passed.
    pub fn finish_or_ask(self, deadline: Duration, grace: Duration) -> Result<Finished> {
        if let Err(err) = self.await_end(deadline) {
            self.signal(Signal::TERM)?;
            let pidfd = self.pidfd()?;
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            // The interrupt stays readable, so it must not be waited for once more.
            rustix::event::poll(&mut fds, Timespec::try_from(grace).ok().as_ref())?;
            return Err(err);
        }
        self.finished()
    }

    fn pidfd(&self) -> Result<OwnedFd> {
        let pid = Pid::from_child(&self.child);
        Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
    }

    fn await_end(&self, deadline: Duration) -> Result<()> {
        let end = Instant::now() + deadline;
        let pidfd = self.pidfd()?;
        match wait_readable(&[PollFd::new(&pidfd, PollFlags::IN)], end)? {
            Ready::Other => Ok(()),
            Ready::Interrupt => Err(interrupted()),
            Ready::Nothing => Err(error!(
                "`{}` has not ended within {deadline:?}; stdout {:?}, stderr {:?}",
                self.what,
                self.stdout.as_ref().map(Captured::text).unwrap_or_default(),
                self.stderr.as_ref().map(Captured::text).unwrap_or_default()
            )),
        }
    }

    /// How a child that has ended did so.
    fn finished(mut self) -> Result<Finished> {
        let status = self.child.wait()?;
        Ok(Finished {
            what: self.what.clone(),
            code: code(status),
            stdout: self.take_output("stdout", |process| process.stdout.as_ref())?,
            stderr: self.take_output("stderr", |process| process.stderr.as_ref())?,
        })
    }

    /// All of a stream, which must end with the process.
    fn take_output(
        &self,
        name: &str,
        stream: impl Fn(&Self) -> Option<&Captured>,
    ) -> Result<String> {
        let Some(captured) = stream(self) else {
            return Ok(String::new());
        };
        ensure!(
            captured.wait(Duration::from_secs(2), |state| state.ended),
            "`{}` has ended, but something it left behind holds its {name} open",
            self.what
        );
        Ok(captured.text())
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(rustix::process::kill_process(
            Pid::from_child(&self.child),
            signal,
        )?)
    }
}

impl Drop for Process {
    /// Kills the whole group; does nothing after [`Process::finish`].
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        if let Ok(None) = self.child.try_wait() {
            // An error means that the group has ended by itself.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = self.child.wait();
        }
        spawned().remove(&pid.as_raw_pid());
    }
}

/// Runs a command and keeps its output.
pub fn run(command: Command, deadline: Duration) -> Result<Finished> {
    Process::spawn(command)?.finish(deadline)
}

/// Runs a command whose output the user sees, and fails if it does.
pub fn show(command: Command, deadline: Duration) -> Result<()> {
    let what = describe(&command);
    let code = Process::spawn_as_is(command)?.finish(deadline)?.code;
    ensure!(code == 0, "`{what}` ended with {code}");
    Ok(())
}

/// The command line, as somebody would type it.
pub fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn code(status: ExitStatus) -> i32 {
    // One of the two is there: `wait` reports only ends.
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

/// What a stream has delivered so far.
struct Captured(Arc<(Mutex<Stream>, Condvar)>);

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn contains(&self, text: &str) -> bool {
        self.bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }
}

impl Captured {
    fn start(mut source: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Stream::default()), Condvar::new()));
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let count = source.read(&mut buffer).unwrap_or(0);
                let mut stream = writer.0.lock().unwrap_or_else(PoisonError::into_inner);
                stream.bytes.extend_from_slice(&buffer[..count]);
                stream.ended = count == 0;
                writer.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self(shared)
    }

    fn wait(&self, timeout: Duration, condition: impl Fn(&Stream) -> bool) -> bool {
        let stream = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, _) = self
            .0
            .1
            .wait_timeout_while(stream, timeout, |stream| !condition(stream))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&stream)
    }

    fn text(&self) -> String {
        let stream = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&stream.bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_exit_code_are_kept() {
        let finished = run(sh("echo out; echo err >&2; exit 3"), Duration::from_secs(5)).unwrap();
        assert_eq!((finished.code, finished.stdout.as_str()), (3, "out\n"));
        assert_eq!(finished.stderr, "err\n");
    }

    #[test]
    fn a_command_past_its_deadline_is_killed_with_its_children() {
        let process = Process::spawn(sh("sleep 100 & echo $!; wait")).unwrap();
        let err = process
            .finish(Duration::from_millis(300))
            .unwrap_err()
            .to_string();
        assert!(err.contains("has not ended within"), "{err}");
        let child: i32 = err
            .split('"')
            .nth(1)
            .unwrap()
            .trim_end_matches("\\n")
            .parse()
            .unwrap();
        wait_for_end_of(child, Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn output_can_be_awaited() {
        let mut process = Process::spawn(sh("echo ready; sleep 100")).unwrap();
        process
            .wait_for_output("ready", Duration::from_secs(5))
            .unwrap();
    }

    #[test]
    fn a_stream_that_outlives_its_command_is_reported() {
        let err = run(sh("sleep 4 & exit 0"), Duration::from_secs(5))
            .unwrap_err()
            .to_string();
        assert!(err.contains("holds its stdout open"), "{err}");
    }
}
