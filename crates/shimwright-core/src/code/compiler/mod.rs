//! The compiler: a separate process, without files of the node, network or privileges, that turns
//! one WebAssembly binary into native code.
//!
//! A large program reads untrusted input here, so it must not run in the shim, nor with the shim's
//! privileges.

mod group;
mod jail;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

pub(crate) use self::group::{Turn, pause, sweep};
pub(crate) use self::jail::{Jail, Left};

use crate::config::node;
use crate::engine::artifact::Wasm;
use crate::engine::{BoxError, Options};
use crate::error::{self, Context, Error};
use crate::process::role::{self, Failure};
use crate::runner::host::Host;
use crate::runner::libraries::Program;
use crate::sys;

/// The largest artifact, in bytes.
const MOST_OUTPUT: u64 = 2 << 30;
/// How many threads' worth of processor time a compile may use within its deadline.
const THREADS: u64 = 64;

/// One compilation.
#[derive(Debug)]
pub(crate) struct Compilation<'a> {
    pub(crate) host: &'a Host,
    pub(crate) options: &'a serde_json::Map<String, serde_json::Value>,
    pub(crate) config: &'a node::Compile,
    pub(crate) turn: &'a Turn<'a>,
    pub(crate) empty: &'a Path,
    /// Hung up when nobody waits for it any more.
    pub(crate) wanted: BorrowedFd<'a>,
}

impl Compilation<'_> {
    /// Compiles `wasm` into `output` in a compiler process and waits for it.
    ///
    /// Launcher process.
    ///
    /// # Errors
    ///
    /// `Invalid` with the compiler's reason.
    pub(crate) fn run(&self, wasm: &File, output: &File) -> Result<(), Error> {
        let options = serde_json::to_string(self.options).context("encode the engine's options")?;
        let config = self.config;
        // Where the kernel limits the memory, the limit of the process is a second wall.
        let memory = if self.turn.limits_memory {
            config.memory.saturating_mul(2)
        } else {
            config.memory
        };
        let jail = Jail {
            uid: config.uid(rustix::process::getpid()),
            memory,
            seconds: config.deadline().as_secs().saturating_mul(THREADS),
            file: MOST_OUTPUT,
        };
        let jail = serde_json::to_string(&jail).context("encode the limits of a compiler")?;
        let program = Program::of(self.host)?.command();
        let mut command = role::command(program, role::COMPILER, self.turn.cgroups());
        command
            .args([options, jail])
            .current_dir(self.empty)
            .stdin(wasm.try_clone().context("pass on the module")?)
            .stdout(output.try_clone().context("pass on the artifact")?);
        let compiled = role::run(command, self.wanted, config.deadline());
        compiled
            .context("run the compiler")?
            .map_err(|failure| self.explain(&failure))
    }

    fn explain(&self, failure: &Failure) -> Error {
        let name = self.host.name;
        let out_of_memory = match failure {
            Failure::Ended(reason, _) => self.turn.ran_out_of_memory() || is_about_memory(reason),
            _ => false,
        };
        Error::invalid(match failure {
            _ if out_of_memory => format!(
                "{name} cannot compile the module: it needed more than compile.memory = {}",
                self.config.memory
            ),
            Failure::TooLong => format!(
                "{name} cannot compile the module: it took longer than compile.deadline = {} \
                 seconds",
                self.config.deadline().as_secs()
            ),
            other => format!("{name} cannot compile the module: {other}"),
        })
    }
}

/// What programs say that are refused memory: Rust's allocator, C++, LLVM.
fn is_about_memory(reason: &str) -> bool {
    ["memory allocation of", "std::bad_alloc", "out of memory"]
        .iter()
        .any(|text| reason.contains(text))
}

/// The compiler's whole life: standard input to standard output.
pub(crate) fn main(host: &Host, options: Option<String>, jail: Option<String>) -> ExitCode {
    match run(host, options, jail) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", error::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(host: &Host, options: Option<String>, jail: Option<String>) -> Result<(), BoxError> {
    let jail: Jail = serde_json::from_str(&jail.unwrap_or_default())?;
    if host.libraries.is_some() {
        make_scratch(jail.memory)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let scratch = rustix::fs::open(".", flags, Mode::empty())?;
        jail.enter(Left::Scratch(scratch.as_fd()))?;
    } else {
        jail.enter(Left::Nothing)?;
    }
    let options = serde_json::from_str(&options.unwrap_or_default())?;
    let engine = host.engine(&Options::new(options))?;
    let precompiler = engine
        .precompiler()
        .ok_or("the engine compiles nothing ahead of time")?;
    let wasm = Wasm::open(io::stdin().as_fd())?;
    let native = precompiler.precompile(wasm.bytes())?;
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    Ok(output.write_all(&native)?)
}

/// Puts an empty file system in memory over the working directory, for this process alone: a
/// compiler that is a shared library may want to write files on its way.
fn make_scratch(most: u64) -> Result<(), BoxError> {
    sys::process::unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let here = std::env::current_dir()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = CString::new(format!("mode=1777,size={most}"))?;
    rustix::mount::mount("tmpfs", &here, "tmpfs", flags, &*options)?;
    Ok(rustix::process::chdir(&here)?)
}
