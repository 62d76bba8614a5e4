//! The compiler: a process of its own, without files of the node, network or privileges, that turns
//! one WebAssembly binary into native code.
//!
//! The binary is untrusted input to a large program. What can go wrong there must not happen in
//! the shim, nor with the shim's rights.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::UnshareFlags;

use crate::artifact::Wasm;
use crate::engine::{BoxError, Options};
use crate::error::{self, Context, Error};
use crate::host::Host;
use crate::linked::Program;
use crate::{role, sys};

/// The user and group called nobody.
const NOBODY: u32 = 65534;
/// Limits of one compilation.
const LIMITS: [(Resource, u64); 5] = [
    (Resource::As, 8 << 30),
    (Resource::Fsize, 2 << 30),
    (Resource::Cpu, 600),
    (Resource::Nofile, 16),
    (Resource::Core, 0),
];
/// The options of the file system that a compiler may write to.
const SCRATCH: &CStr = c"mode=1777,size=4g";

/// Compiles `wasm` into `output` in a compiler process and waits for it.
///
/// Launcher process.
///
/// # Errors
///
/// `Invalid` with the compiler's reason.
pub(crate) fn compile(
    host: &Host,
    options: &serde_json::Map<String, serde_json::Value>,
    wasm: &File,
    output: &File,
    empty: &Path,
    shim_alive: BorrowedFd<'_>,
) -> Result<(), Error> {
    let options = serde_json::to_string(options).context("encode the engine's options")?;
    let mut command = role::command(Program::of(host)?.command(), role::COMPILER);
    command
        .arg(options)
        .current_dir(empty)
        .stdin(wasm.try_clone().context("pass on the module")?)
        .stdout(output.try_clone().context("pass on the artifact")?);
    let compiled = role::run(command, Some(shim_alive)).context("run the compiler")?;
    compiled.map_err(|reason| {
        Error::invalid(format!("{} cannot compile the module: {reason}", host.name))
    })
}

/// The compiler's whole life: standard input to standard output.
pub(crate) fn main(host: &Host, options: Option<String>) -> ExitCode {
    match run(host, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", error::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(host: &Host, options: Option<String>) -> Result<(), BoxError> {
    if host.libraries.is_some() {
        make_scratch()?;
    }
    jail()?;
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
fn make_scratch() -> io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let here = std::env::current_dir()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("tmpfs", &here, "tmpfs", flags, SCRATCH)?;
    Ok(rustix::process::chdir(&here)?)
}

/// Gives up everything but the two open files. The working directory is empty.
fn jail() -> io::Result<()> {
    let namespaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    sys::unshare(namespaces)?;
    rustix::process::chroot(".")?;
    for (resource, limit) in LIMITS {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        rustix::process::setrlimit(resource, limit)?;
    }
    sys::become_user(NOBODY)?;
    rustix::thread::set_no_new_privs(true)?;
    let left = rustix::thread::capabilities(None)?;
    if left.effective.is_empty() && left.permitted.is_empty() {
        return Ok(());
    }
    Err(io::Error::other("the compiler still has capabilities"))
}
