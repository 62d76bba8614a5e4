//! One guest in a runner of its own: this test's program, executed as a shim's runner.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shimwright_core::testing::{self, Code};
use shimwright_core::{BoxError, Engine, Limit, Shim};
use tempfile::TempDir;

use crate::case::{End, Form, Run, Text};

/// How long a run may take. Only a hanging one takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a guest that has written everything must not end to count as one that keeps running.
const STILL_RUNNING: Duration = Duration::from_millis(200);

/// A shim and its engine.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The name of both.
    pub(crate) name: &'a str,
    pub(crate) shim: &'a Shim,
    pub(crate) engine: &'a dyn Engine,
}

/// A guest that runs. It ends with this value.
pub(crate) struct Guest {
    child: Child,
    beside: TempDir,
    output: Receiver<(Stream, Vec<u8>)>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Whether both streams are closed.
    ended: bool,
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Guest {
    /// Starts a run, after `tune` has changed what the runner is told.
    pub(crate) fn start(
        subject: Subject<'_>,
        run: &Run,
        tune: impl FnOnce(&mut testing::Run) -> Result<(), BoxError>,
    ) -> Result<Self, BoxError> {
        let beside = tempfile::tempdir()?;
        if let Some(directory) = &run.directory {
            std::fs::create_dir(beside.path().join("data"))?;
            (directory.set_up)(beside.path())?;
        }
        let code = match run.form {
            Form::Wasm => Code::wasm(run.wasm)?,
            Form::Precompiled => {
                let cache = beside.path().join("cache");
                Code::precompiled(subject.shim, subject.engine, run.wasm, &cache)?
            }
        };
        let mut told = told(run, beside.path());
        tune(&mut told)?;
        let mut command = testing::runner(subject.shim, &told, code)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("the child has no pipes".into());
        };
        let input = run.stdin;
        // A guest that does not read leaves a broken pipe, which is its right.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let (sender, output) = mpsc::channel();
        read(stdout, Stream::Out, sender.clone());
        read(stderr, Stream::Err, sender);
        Ok(Self {
            child,
            beside,
            output,
            stdout: Vec::new(),
            stderr: Vec::new(),
            ended: false,
        })
    }

    /// The directory whose `data` is the guest's preopen.
    pub(crate) fn beside(&self) -> &Path {
        self.beside.path()
    }

    /// Waits until the guest has written this, for as long as a run may take.
    ///
    /// # Errors
    ///
    /// What it has done instead.
    pub(crate) fn wait_for(&mut self, stdout: Text) -> Result<(), BoxError> {
        let deadline = Instant::now() + DEADLINE;
        while !stdout.matches(&String::from_utf8_lossy(&self.stdout)) {
            if !self.receive(deadline) {
                let written = self.written();
                return Err(format!("it has not written {stdout:?}\n{written}").into());
            }
        }
        Ok(())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), BoxError> {
        let signal = Signal::from_named_raw(signal).ok_or("no signal")?;
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until it has ended by itself; after `bound` it is killed. Returns its status unless it
    /// was killed.
    pub(crate) fn end(&mut self, bound: Duration) -> Result<Option<ExitStatus>, BoxError> {
        let deadline = Instant::now() + bound;
        while self.receive(deadline) {}
        // Nothing but a run that did not end by itself notices.
        self.child.kill()?;
        let status = self.child.wait()?;
        Ok(self.ended.then_some(status))
    }

    /// What it has written, for a report.
    pub(crate) fn written(&self) -> String {
        let [stdout, stderr] =
            [&self.stdout, &self.stderr].map(|text| String::from_utf8_lossy(text));
        format!("standard output: {stdout:?}\nstandard error: {stderr:?}")
    }

    /// Takes what is written next; false at the end of it, and at the deadline.
    fn receive(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.output.recv_timeout(left) {
            Ok((Stream::Out, bytes)) => self.stdout.extend(bytes),
            Ok((Stream::Err, bytes)) => self.stderr.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                return false;
            }
            Err(RecvTimeoutError::Timeout) => return false,
        }
        true
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what a stream yields, in a thread that ends with the stream.
fn read(mut from: impl Read + Send + 'static, stream: Stream, to: Sender<(Stream, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.send((stream, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
}

/// What the runner is told, with the preopen in this directory.
fn told(run: &Run, beside: &Path) -> testing::Run {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let preopen = run
        .directory
        .map(|_| (beside.join("data"), "/data".to_owned()));
    let mut told = testing::Run {
        function: run.function.to_owned(),
        args: run.args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: run.env.iter().map(owned).collect(),
        preopens: preopen.into_iter().collect(),
        ..testing::Run::default()
    };
    let mut limit = |key: &str, value: String| told.limits.push((key.to_owned(), value));
    if let Some(seconds) = run.time_limit {
        limit("time_limit", seconds.to_string());
    }
    match run.limit {
        None => {}
        // These are no numbers.
        Some((none @ (Limit::Outbound | Limit::NameLookup), _)) => {
            limit(&none.to_string(), "none".to_owned());
        }
        Some((number, most)) => limit(&number.to_string(), most.to_string()),
    }
    told
}

/// Runs a case and says what is not as expected.
pub(crate) fn check(subject: Subject<'_>, run: &Run) -> Result<(), BoxError> {
    let mut guest = Guest::start(subject, run, |_| Ok(()))?;
    let status = match run.end {
        End::Killed => {
            guest.wait_for(run.stdout)?;
            guest.end(STILL_RUNNING)?
        }
        End::Signalled(signal) => {
            guest.wait_for(run.stdout)?;
            guest.signal(signal)?;
            guest.end(DEADLINE)?
        }
        _ => guest.end(DEADLINE)?,
    };
    let mut wrong: Vec<String> = ends(status, run.end).err().into_iter().collect();
    for (stream, expected, found) in [
        ("output", run.stdout, &guest.stdout),
        ("error", run.stderr, &guest.stderr),
    ] {
        let found = String::from_utf8_lossy(found);
        if !expected.matches(&found) {
            wrong.push(format!(
                "standard {stream} is {found:?} instead of {expected:?}"
            ));
        }
    }
    let reason = String::from_utf8_lossy(&guest.stderr);
    if matches!(run.stderr, Text::Line(_)) && !is_readable(&reason, subject.name) {
        wrong.push(format!("the reason {reason:?} is not for people"));
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n").into());
    }
    match &run.directory {
        Some(directory) => (directory.check)(guest.beside()),
        None => Ok(()),
    }
}

/// Whether a reason says who gives it, and more than that there is one.
fn is_readable(reason: &str, engine: &str) -> bool {
    let said = reason.strip_prefix(&format!("{engine}: "));
    let meaningless = ["unknown error", "memory access error", "error code"];
    said.is_some_and(|said| {
        let said = said.trim().to_lowercase();
        !said.is_empty() && !meaningless.iter().any(|words| said.contains(words))
    })
}

/// Whether a run has ended as expected; without a status it had to be killed.
pub(crate) fn ends(status: Option<ExitStatus>, end: End) -> Result<(), String> {
    match (end.status(), status) {
        (None, None) => Ok(()),
        (None, Some(status)) => Err(format!("it ended by itself: {}", describe(status))),
        (Some(_), None) => Err(format!("it did not end within {DEADLINE:?}")),
        (Some(expected), Some(status)) if status.code() == Some(i32::from(expected)) => Ok(()),
        (Some(expected), Some(status)) => Err(format!(
            "{} instead of exit status {expected}",
            describe(status)
        )),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
