//! What the `main` of a shim binary calls.

pub(crate) mod bootstrap;
mod connection;
mod delete;
mod features;
mod info;
pub(crate) mod metrics;
mod serve;
mod shutdown;
mod socket;
mod start;

use std::io::Write;
use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

use containerd_shim::Flags;

use crate::code::compiler;
use crate::code::content;
use crate::code::planner;
use crate::engine::{BoxError, Engine, Options};
use crate::error::{self, Error};
use crate::process::role;
use crate::runner;
use crate::runner::host::Host;
use crate::runner::libraries::Libraries;
use crate::stdio::copier;
use crate::sys;

/// containerd's default directory of bundles.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// A containerd shim for one engine.
///
/// ```no_run
/// # use shimwright_core::{BoxError, Engine, Exit, Shim, Workload};
/// # #[derive(Default)]
/// # struct MyEngine;
/// # impl Engine for MyEngine {
/// #     fn run(&self, _: &Workload) -> Result<Exit, BoxError> { Ok(Exit::Code(0)) }
/// # }
/// fn main() -> std::process::ExitCode {
///     Shim::new("mine", env!("CARGO_PKG_VERSION"), |_options| Ok(MyEngine::default())).main()
/// }
/// ```
#[derive(Debug)]
pub struct Shim {
    pub(crate) host: Host,
}

impl Shim {
    /// Creates a shim called `name`. containerd knows it as `io.containerd.<name>.v1` and looks for
    /// the executable `containerd-shim-<name>-v1`.
    ///
    /// `engine` builds the engine. Several processes call it, see [`Engine`].
    pub fn new<E: Engine>(
        name: &'static str,
        version: &'static str,
        engine: fn(&Options) -> Result<E, BoxError>,
    ) -> Self {
        Self {
            host: Host::new(name, version, engine),
        }
    }

    /// Executes the engine's processes from a directory of shared libraries, for an engine that is a
    /// shared library. The shim itself stays static.
    ///
    /// The directory is `../lib/shimwright/<name>` relative to the shim's executable, or `<name>` in
    /// the directory that the environment variable `SHIMWRIGHT_LIB_DIR` names. It holds a dynamic
    /// linker under the name that its ABI gives, the libraries, and `engine`: this program again,
    /// linked to them. The linker must not read `/etc/ld.so.preload`: in a container, that file
    /// belongs to the image. All users must be able to read the files.
    ///
    /// The static program computes the fingerprint of [`Engine::precompiler`]; the linked program
    /// does everything else that needs the library. Both must have the same version, so `name`
    /// should contain it. `remedy` says how to make the directory. It is added to the error if the
    /// directory cannot be used.
    #[must_use]
    pub fn with_libraries(mut self, name: &'static str, remedy: &'static str) -> Self {
        self.host.libraries = Some(Libraries { name, remedy });
        self
    }

    /// Runs the command of the command line, or the role for which another process of the shim
    /// started this one. Returns when it is done.
    pub fn main(self) -> ExitCode {
        // Before anything of ours, or a fork of it, is where an image could supply libraries.
        sys::process::built_in_name_lookup();
        let descriptor = |name| -> Option<RawFd> { std::env::var(name).ok()?.parse().ok() };
        if let Some(config) = descriptor(role::RUNNER) {
            return runner::main(&self.host, config).into();
        }
        if std::env::var_os(role::COMPILER).is_some() {
            let mut args = std::env::args().skip(1);
            return compiler::main(&self.host, args.next(), args.next());
        }
        if std::env::var_os(role::PLANNER).is_some() {
            return planner::main(&self.host, std::env::args().skip(1));
        }
        if std::env::var_os(role::FETCHER).is_some() {
            return content::main(std::env::args().skip(1));
        }
        if let Some(streams) = descriptor(role::COPIER) {
            return copier::main(usize::try_from(streams).unwrap_or_default());
        }
        match self.command() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // containerd shows this line to the client that asked for the container.
                let _ = writeln!(std::io::stderr(), "{}", error::chain(&error));
                ExitCode::FAILURE
            }
        }
    }

    fn command(self) -> Result<(), Error> {
        let args: Vec<_> = std::env::args_os().skip(1).collect();
        let flags = containerd_shim::parse(&args)
            .map_err(|error| Error::invalid(format!("command line: {error}")))?;
        if flags.version {
            return print(format!(
                "{}:\n  Version: {}\n",
                self.host.name, self.host.version
            ));
        }
        if flags.info {
            return info::run(&self.host);
        }
        match flags.action.as_str() {
            "start" => start::run(&self.host, &require(flags, "start")?),
            "delete" => delete::run(&require(flags, "delete")?),
            "metrics" => print_metrics(&self.host, &flags),
            "" => serve::run(self.host, &require(flags, "serve")?),
            other => Err(Error::invalid(format!("unknown action {other:?}"))),
        }
    }
}

/// Prints the figures of the tasks below `-bundle`: a command for administrators, not containerd.
fn print_metrics(host: &Host, flags: &Flags) -> Result<(), Error> {
    use crate::error::Context;
    let directory = Some(flags.bundle.as_str()).filter(|bundle| !bundle.is_empty());
    let directory = Path::new(directory.unwrap_or(BUNDLES));
    let tasks = metrics::collect(directory, host.name)
        .with_context(|| format!("list the bundles in {}", directory.display()))?;
    print(metrics::text(host.name, &tasks))
}

/// The other actions are about one container.
fn require(flags: Flags, action: &str) -> Result<Flags, Error> {
    if flags.id.is_empty() || flags.namespace.is_empty() {
        return Err(Error::invalid(format!("{action} needs -id and -namespace")));
    }
    crate::config::bundle::validate_id("container", &flags.id)?;
    Ok(flags)
}

/// Writes the one thing that belongs on standard output.
fn print(text: impl AsRef<[u8]>) -> Result<(), Error> {
    use crate::error::Context;
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_ref())
        .context("write to standard output")?;
    stdout.flush().context("write to standard output")
}
