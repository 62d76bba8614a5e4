//! One run of a case, in a process of its own: this test's binary, started once more.

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use shimwright_core::{
    Artifact, BoxError, Engine, Exit, Precompiled, Preopen, Status, Wasm, Workload,
};

use crate::case::{End, Form, Run};

/// Marks the binary's start as the run of a case. Not for use by hand.
pub(crate) const RUN: &str = "--run-case";

/// How long a run may take. Only a hanging one takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a guest that has written everything must not end to count as one that keeps running.
const STILL_RUNNING: Duration = Duration::from_millis(200);

/// What a shim's runner process does: runs the guest and exits with its status.
pub(crate) fn main(engine: &dyn Engine, run: &Run, beside: &Path) -> ExitCode {
    let exit = workload(engine, run, beside).and_then(|workload| {
        shimwright_core::restrict_system_calls()?;
        engine.run(&workload)
    });
    let (status, reason) = match exit {
        Ok(Exit::Code(code)) => (Status::from_code(code), None),
        Ok(Exit::Trap(reason)) => (Status::TRAPPED, Some(reason)),
        Ok(other) => (
            Status::ENGINE_FAILED,
            Some(format!("unknown to the suite: {other:?}")),
        ),
        Err(error) => (Status::ENGINE_FAILED, Some(chain(&*error))),
    };
    if let Some(reason) = reason {
        eprintln!("{reason}");
    }
    status.into()
}

/// What the engine is given to run.
pub(crate) fn workload(
    engine: &dyn Engine,
    run: &Run,
    beside: &Path,
) -> Result<Workload, BoxError> {
    let wasm = Wasm::new(run.wasm.to_vec())?;
    let artifact = match run.form {
        Form::Wasm => Artifact::Wasm(wasm),
        Form::Precompiled => {
            let precompiler = engine
                .precompiler()
                .ok_or("the engine has no precompiler")?;
            Artifact::Precompiled(Precompiled::compile(precompiler, &wasm)?)
        }
    };
    let preopen = run
        .directory
        .map(|_| Preopen::new(beside.join("data"), "/data"));
    let workload = Workload::new(artifact)
        .with_function(run.function)
        .with_args(run.args.iter().copied())
        .with_env(run.env.iter().copied())
        .with_preopens(preopen);
    Ok(match run.limit {
        None => workload,
        Some((limit, most)) => workload.with_limit(&limit.to_string(), &most.to_string())?,
    })
}

/// Runs a case in a child process and says what is not as expected.
pub(crate) fn check(name: &str, run: &Run) -> Result<(), BoxError> {
    let beside = tempfile::tempdir()?;
    if let Some(directory) = &run.directory {
        std::fs::create_dir(beside.path().join("data"))?;
        (directory.set_up)(beside.path())?;
    }
    let mut child = Command::new(env::current_exe()?)
        .arg(RUN)
        .arg(name)
        .arg(beside.path())
        .env("SHIMWRIGHT_CONFORMANCE", "not for the guest's eyes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = follow(&mut child, run);
    // Nothing but a run that did not end by itself notices.
    child.kill()?;
    let status = child.wait()?;
    output?.check(status, run)?;
    match &run.directory {
        Some(directory) => (directory.check)(beside.path()),
        None => Ok(()),
    }
}

/// An error with its sources in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Everything that a run has written.
struct Output {
    stdout: String,
    stderr: String,
    /// Whether both streams were closed before it had to be killed.
    ended: bool,
}

impl Output {
    fn check(self, status: ExitStatus, run: &Run) -> Result<(), BoxError> {
        let mut wrong = Vec::new();
        match run.end.status() {
            None if self.ended => wrong.push(format!("it ended by itself: {}", describe(status))),
            None => {}
            Some(_) if !self.ended => wrong.push(format!("it did not end within {DEADLINE:?}")),
            Some(expected) if status.code() != Some(i32::from(expected)) => {
                wrong.push(format!(
                    "{} instead of exit status {expected}",
                    describe(status)
                ));
            }
            Some(_) => {}
        }
        for (stream, expected, found) in [
            ("output", run.stdout, &self.stdout),
            ("error", run.stderr, &self.stderr),
        ] {
            if !expected.matches(found) {
                wrong.push(format!(
                    "standard {stream} is {found:?} instead of {expected:?}"
                ));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n").into())
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Feeds a run and reads from it, until it has closed its output, has written what is expected of
/// one that has to be killed, or has taken too long.
fn follow(child: &mut Child, run: &Run) -> Result<Output, BoxError> {
    let (sender, receiver) = mpsc::channel();
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("the child has no pipes".into());
    };
    let input = run.stdin;
    // A guest that does not read leaves a broken pipe, which is its right.
    thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    read(stdout, Stream::Out, sender.clone());
    read(stderr, Stream::Err, sender);
    collect(&receiver, run)
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
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

fn collect(from: &Receiver<(Stream, Vec<u8>)>, run: &Run) -> Result<Output, BoxError> {
    let mut deadline = Instant::now() + DEADLINE;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = loop {
        match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((Stream::Out, bytes)) => stdout.extend(bytes),
            Ok((Stream::Err, bytes)) => stderr.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
        if run.end == End::Killed && run.stdout.matches(&String::from_utf8_lossy(&stdout)) {
            deadline = Instant::now() + STILL_RUNNING;
        }
    };
    Ok(Output {
        stdout: String::from_utf8(stdout)?,
        stderr: String::from_utf8(stderr)?,
        ended,
    })
}
