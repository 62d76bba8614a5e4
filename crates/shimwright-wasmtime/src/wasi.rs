//! A workload as a WASI context, and the ways in which WASI ends one.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use shimwright_core::{BoxError, Exit, Preopen, Workload};
use tokio::io::AsyncWrite;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::cli::{self, OutputFile, StdoutStream};
use wasmtime_wasi::p2::OutputStream;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use crate::limits::Limits;

/// What the workload may see, to be given to any number of instances: its arguments, environment,
/// preopens, output streams and the container's network.
pub(crate) struct View {
    args: Vec<String>,
    env: Vec<(String, String)>,
    preopens: Vec<Preopen>,
    stdout: Output,
    stderr: Output,
    /// Of each instance.
    pub(crate) limits: Limits,
}

impl View {
    pub(crate) fn new(workload: &Workload) -> Result<Self, BoxError> {
        Ok(Self {
            args: workload.args().to_vec(),
            env: workload.env().to_vec(),
            preopens: workload.preopens().to_vec(),
            stdout: Output::new(io::stdout())?,
            stderr: Output::new(io::stderr())?,
            limits: Limits::new(workload),
        })
    }

    /// A context for one instance, whose standard input is empty.
    pub(crate) fn context(&self) -> Result<WasiCtxBuilder, BoxError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&self.args)
            .envs(&self.env)
            .stdout(self.stdout.clone())
            .stderr(self.stderr.clone());
        self.limits.reach.apply(&mut wasi);
        for preopen in &self.preopens {
            // What can be written is decided by the mounts below it.
            wasi.preopened_dir(preopen.host(), preopen.guest(), FsPerms::ReadWrite)
                .map_err(|error| {
                    format!(
                        "cannot open the directory {}: {error}",
                        preopen.host().display()
                    )
                })?;
        }
        Ok(wasi)
    }
}

/// A context for the only instance of a process.
pub(crate) fn context(workload: &Workload) -> Result<WasiCtxBuilder, BoxError> {
    let mut wasi = View::new(workload)?.context()?;
    wasi.inherit_stdin()
        // Nothing else would run meanwhile, and a thread for it would be a thread more.
        .allow_blocking_current_thread(true);
    Ok(wasi)
}

/// Marks why a guest could not be instantiated, if that was not its own doing: if it needs more than
/// it may have, none of its code has run.
pub(crate) fn started<T>(instance: wasmtime::Result<T>) -> wasmtime::Result<T> {
    instance.map_err(|error| {
        let is_guests = error.is::<WasmBacktrace>() || error.is::<Trap>() || error.is::<I32Exit>();
        if is_guests {
            error
        } else {
            error.context(NotStarted)
        }
    })
}

/// See [`started`].
#[derive(Clone, Copy, Debug)]
struct NotStarted;

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot instantiate the guest")
    }
}

/// How a guest ended that did not return, unless it has never begun.
pub(crate) fn ended(error: wasmtime::Error) -> Result<Exit, BoxError> {
    if error.is::<NotStarted>() {
        return Err(error.into());
    }
    Ok(exit(&error))
}

/// How a guest ended that did not return.
pub(crate) fn exit(error: &wasmtime::Error) -> Exit {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Exit::Code(*code);
    }
    let reason = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        // An import that the guest called has failed for good, such as for a bad pointer.
        None => error.root_cause().to_string(),
    };
    let function = error
        .downcast_ref::<WasmBacktrace>()
        .and_then(|backtrace| backtrace.frames().first()?.func_name());
    Exit::Trap(match function {
        Some(function) => format!("{reason} in function `{function}`"),
        None => reason,
    })
}

/// A standard stream that is written to at once, so that nothing is lost if the process ends by a
/// signal.
#[derive(Clone)]
struct Output {
    file: OutputFile,
    terminal: bool,
}

impl Output {
    fn new(stream: impl AsFd + IsTerminal) -> io::Result<Self> {
        Ok(Self {
            terminal: stream.is_terminal(),
            file: OutputFile::new(File::from(stream.as_fd().try_clone_to_owned()?)),
        })
    }
}

impl cli::IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        self.file.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        self.file.p2_stream()
    }
}
