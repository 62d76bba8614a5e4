//! The last steps of a container's process before it executes its program.
//!
//! All of this runs inside the finished sandbox, after `start`, in a process that the launcher
//! forked and [`init`](super::init) set up.

use std::ffi::CString;
use std::fmt;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::process::Signal;

use crate::config::record::ContainerKind;
use crate::config::record::EngineMetrics;
use crate::engine::exit::Status;
use crate::engine::limits::Limits;
use crate::error::{Error, printable};
use crate::process::launcher;
use crate::runner::libraries::Program;
use crate::sys;

/// What the process becomes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Our own program in its runner role, which finds its configuration in an inherited descriptor.
    Runner {
        /// Our own program, opened outside the sandbox.
        program: Arc<Program>,
        /// Descriptors it is to find open.
        inherited: Vec<Arc<OwnedFd>>,
    },
    /// A program of the image, by its path.
    Linux { path: CString },
}

/// How the process is executed.
#[derive(Clone)]
pub(crate) struct Exec {
    pub(crate) target: Target,
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// What a guest may use; none for a program of the image.
    pub(crate) limits: Limits,
    /// The read end of a pipe whose write end only the shim process holds.
    pub(crate) shim_alive: Arc<OwnedFd>,
    /// Its standard input is a terminal that is to be its controlling one.
    pub(crate) controls_terminal: bool,
    /// Where a process that joins a container says why it cannot execute its program: the write
    /// end of a pipe that executing closes. Otherwise its standard error is the place.
    pub(crate) failure: Option<Arc<OwnedFd>>,
    /// What getting at a guest's code has cost.
    pub(crate) figures: Option<EngineMetrics>,
}

/// Shows no argument and no variable: either may be a secret.
impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec")
            .field("target", &self.target)
            .field("args", &self.args.len())
            .field("env", &self.env.len())
            .finish_non_exhaustive()
    }
}

impl Exec {
    /// Whether it runs WebAssembly or a program of the image.
    pub(crate) fn kind(&self) -> ContainerKind {
        match self.target {
            Target::Runner { .. } => ContainerKind::Wasm,
            Target::Linux { .. } => ContainerKind::Linux,
        }
    }

    /// Closes what executing does not take. The sandbox is finished, and nobody has been told yet.
    pub(super) fn close_the_rest(&self) -> std::io::Result<()> {
        launcher::leave_the_answer();
        sys::fd::close_files_but(&self.descriptors())
    }

    /// What executing takes.
    fn descriptors(&self) -> Vec<RawFd> {
        let Target::Runner { program, inherited } = &self.target else {
            return Vec::new();
        };
        let inherited = inherited.iter().map(|descriptor| descriptor.as_raw_fd());
        inherited.chain([program.descriptor()]).collect()
    }

    /// Executes the program; does not return. What it prints if it cannot is the last that this process
    /// does.
    pub(super) fn run(&self) -> ! {
        let failure = self.execute();
        let program = self
            .args
            .first()
            .map(|arg| arg.to_string_lossy())
            .unwrap_or_default();
        let status = match failure.kind() {
            std::io::ErrorKind::NotFound => 127,
            _ if matches!(self.target, Target::Linux { .. }) => 126,
            _ => Status::ENGINE_FAILED.code(),
        };
        self.give_up(&format!("cannot execute {program}: {failure}"), status)
    }

    /// Says why there is no program, and ends this process.
    pub(super) fn give_up(&self, reason: &str, status: u8) -> ! {
        let reason = printable(reason);
        // Nobody may be listening.
        let _ = match &self.failure {
            Some(pipe) => rustix::io::write(pipe, reason.as_bytes()).map(drop),
            None => {
                let _ = writeln!(std::io::stderr(), "{reason}");
                Ok(())
            }
        };
        sys::process::exit_now(status)
    }

    /// Does what can be done before `start`, by the final user: a filter of system calls that is loaded
    /// next may forbid it.
    pub(super) fn prepare(&self) -> std::io::Result<()> {
        self.die_with_the_shim()?;
        if self.controls_terminal {
            rustix::process::ioctl_tiocsctty(std::io::stdin())?;
        }
        match &self.target {
            Target::Runner { .. } => sys::process::write_no_core(),
            Target::Linux { .. } => {
                sys::memory::allow_huge_pages();
                Ok(())
            }
        }
    }

    fn execute(&self) -> std::io::Error {
        match &self.target {
            Target::Runner { program, inherited } => {
                for descriptor in inherited {
                    if let Err(error) = sys::fd::keep_over_exec(descriptor) {
                        return error;
                    }
                }
                program.exec(&self.args, &self.env)
            }
            Target::Linux { path } => sys::exec::exec_path(path, &self.args, &self.env),
        }
    }

    /// Has the kernel end this process when the shim's only thread ends, however it ends.
    ///
    /// It must be asked for here: the setting is cleared by a fork and by a change of user. The shim is
    /// the parent of this process from the start (`CLONE_PARENT`).
    fn die_with_the_shim(&self) -> std::io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The shim may have ended before that call, which then has nothing to wait for. Only the
        // shim holds the pipe's other end, so its end is seen here.
        if sys::fd::is_hung_up(&*self.shim_alive)? {
            sys::process::exit_now(Status::KILLED.code());
        }
        Ok(())
    }
}

/// A list of arguments or variables as `execve` takes it. `field` is their name in the spec.
///
/// # Errors
///
/// `Invalid` with the place of a string that holds a NUL: there it would end.
pub(crate) fn c_strings(field: &str, strings: &[String]) -> Result<Vec<CString>, Error> {
    let strings = strings.iter().enumerate();
    strings
        .map(|(index, text)| {
            CString::new(text.as_bytes())
                .map_err(|_| Error::invalid(format!("{field}[{index}] holds a NUL")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_refused_with_its_place() {
        let strings = ["A=a".to_owned(), "B=\0b".to_owned()];
        let error = c_strings("process.env", &strings).unwrap_err();
        assert_eq!(error.to_string(), "process.env[1] holds a NUL");
        assert_eq!(
            c_strings("process.env", &strings[..1]).unwrap(),
            [c"A=a".to_owned()]
        );
    }
}
