//! A guest run by a shim's own runner, but outside of any container: for `shimwright-conformance`.
//!
//! It is no part of the contract, and changes whenever that crate needs it. Neither containerd nor
//! root is needed, as the caller stands in for the launcher, and the process that is executed does
//! all that a runner does inside its container.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::code::cache::{self, Cache};
use crate::engine::artifact::{Kind, Wasm};
use crate::engine::limits::Limits;
use crate::engine::workload::DEFAULT_FUNCTION;
use crate::engine::{BoxError, Engine, Options};
use crate::error::Context;
use crate::process::role;
use crate::runner::config::{ArtifactFile, Load};
use crate::runner::{self, RunnerConfig};
use crate::shim::Shim;
use crate::{error, sys};

/// What a runner is told to run its guest with.
#[derive(Clone, Debug)]
pub struct Run {
    /// The exported function that is called.
    pub function: String,
    /// The arguments, of which the first is the program's name.
    pub args: Vec<String>,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// Directories of the caller, each with the path by which the guest finds it.
    pub preopens: Vec<(PathBuf, String)>,
    /// The limits: each by its key in the node's file, with a value as in an annotation.
    pub limits: Vec<(String, String)>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            function: DEFAULT_FUNCTION.to_owned(),
            args: vec!["guest".to_owned()],
            env: Vec::new(),
            preopens: Vec::new(),
            limits: Vec::new(),
        }
    }
}

/// What a runner loads.
#[derive(Debug)]
pub struct Code {
    file: File,
    /// Its kind if it is native code.
    precompiled: Option<Kind>,
}

impl Code {
    /// A WebAssembly binary, as a launcher hands it on: in memory that can no longer be changed.
    ///
    /// # Errors
    ///
    /// That there is no memory.
    pub fn wasm(bytes: &[u8]) -> Result<Self, BoxError> {
        let mut file = sys::memory::sealable_memfd(c"wasm")?;
        file.write_all(bytes)?;
        sys::memory::seal(&file)?;
        Ok(Self {
            file,
            precompiled: None,
        })
    }

    /// What a cache in this directory gives for a WebAssembly binary once `engine`, that of the shim,
    /// has compiled it. That is done in the calling process.
    ///
    /// # Errors
    ///
    /// What the precompiler says, or that the cache cannot be used.
    pub fn precompiled(
        shim: &Shim,
        engine: &dyn Engine,
        bytes: &[u8],
        cache: &Path,
    ) -> Result<Self, BoxError> {
        let precompiler = engine.precompiler();
        let precompiler = precompiler.ok_or("the engine compiles nothing ahead of time")?;
        let wasm = Wasm::new(bytes.to_vec())?;
        let cache = Cache::at(cache.to_owned())?;
        let digest = cache::digest(wasm.bytes());
        let key = cache::key(shim.host.name, &precompiler.fingerprint(), &digest);
        let native = precompiler.precompile(wasm.bytes())?;
        let store = |mut output: &File| output.write_all(&native).context("write the native code");
        cache.find_or_compile(&key, || Ok(()), store)?;
        let file = cache.find(&key)?;
        Ok(Self {
            file: file.ok_or("the cache does not find what it has stored")?,
            precompiled: Some(wasm.kind()),
        })
    }
}

/// The engine of a shim, made with the options that a node has unless it is configured.
///
/// # Errors
///
/// The engine's reason.
pub fn engine(shim: &Shim) -> Result<Box<dyn Engine>, BoxError> {
    Ok(shim.host.engine(&Options::default())?)
}

/// An error with its sources in one line that can be printed.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    error::chain(error)
}

/// Whether this process is a runner, which has to call [`Shim::main`] and nothing else.
pub fn is_runner() -> bool {
    std::env::var_os(role::RUNNER).is_some()
}

/// The command that executes this program as the runner of a guest, which ends with the thread that
/// spawns it. Its streams are the guest's.
///
/// An engine that comes as shared libraries finds them as this program has, which is linked to them.
///
/// # Errors
///
/// A limit that cannot be, or that there are no descriptors or no memory left.
pub fn runner(shim: &Shim, run: &Run, code: Code) -> Result<Command, BoxError> {
    let artifact = OwnedFd::from(code.file);
    let config = RunnerConfig {
        function: run.function.clone(),
        args: run.args.clone(),
        env: run.env.clone(),
        preopens: run.preopens.clone(),
        load: Load::Artifact(ArtifactFile::new(&artifact, code.precompiled)),
        limits: limits(run)?,
        options: serde_json::Map::new(),
    };
    let config = config.write()?;
    let mut command = Command::new("/proc/self/exe");
    if let [name, rest @ ..] = &*runner::shown(&run.args) {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    command.env(role::RUNNER, config.as_raw_fd().to_string());
    let mut inherited = vec![config, artifact];
    if shim.host.libraries.is_some() {
        let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        command.env("LD_LIBRARY_PATH", path);
        let back = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        command.env(role::WORKING_DIRECTORY, back.as_raw_fd().to_string());
        inherited.push(back);
    }
    sys::process::prepare_child(&mut command, move || become_runner(&inherited));
    Ok(command)
}

fn limits(run: &Run) -> Result<Limits, BoxError> {
    let mut limits = Limits::default();
    for (key, value) in &run.limits {
        limits.set(key, value, key)?;
    }
    Ok(limits)
}

/// What a container's first process does right before it executes a runner.
fn become_runner(inherited: &[OwnedFd]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::process::write_no_core()?;
    inherited.iter().try_for_each(sys::fd::keep_over_exec)
}
