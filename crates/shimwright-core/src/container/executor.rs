//! The last steps of a container's process before it executes its program.
//!
//! All of this runs inside the finished sandbox, after `start`, in a process that the launcher
//! forked and libcontainer set up.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
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

impl Executor for Exec {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let failure = self.run();
        // Nobody reads what is returned here any more.
        let program = self
            .args
            .first()
            .map(|arg| arg.to_string_lossy())
            .unwrap_or_default();
        let reason = format!("cannot execute {program}: {failure}");
        let reason = printable(&reason);
        let _ = match &self.failure {
            Some(pipe) => rustix::io::write(pipe, reason.as_bytes()).map(drop),
            None => {
                let _ = writeln!(std::io::stderr(), "{reason}");
                Ok(())
            }
        };
        let status = match failure.kind() {
            std::io::ErrorKind::NotFound => 127,
            _ if matches!(self.target, Target::Linux { .. }) => 126,
            _ => Status::ENGINE_FAILED.code(),
        };
        sys::process::exit_now(status)
    }

    /// Called when the sandbox is finished and the privileges are dropped, before anybody is told. The
    /// launcher has found and classified the program before the sandbox was built.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Whoever in the container may look into this process, which now waits for `start`, finds no
        // way to the node: libcontainer keeps a handle on a `/proc` of the launcher's, for one.
        launcher::leave_the_answer();
        sys::fd::close_files_but(&self.descriptors())
            .map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is handed to `execve`, in the order of the spec.
        Ok(())
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

    /// What executing takes.
    fn descriptors(&self) -> Vec<RawFd> {
        let Target::Runner { program, inherited } = &self.target else {
            return Vec::new();
        };
        let inherited = inherited.iter().map(|descriptor| descriptor.as_raw_fd());
        inherited.chain([program.descriptor()]).collect()
    }

    fn run(&self) -> std::io::Error {
        if let Err(error) = self.die_with_the_shim() {
            return error;
        }
        if self.controls_terminal
            && let Err(error) = rustix::process::ioctl_tiocsctty(std::io::stdin())
        {
            return error.into();
        }
        match &self.target {
            Target::Runner { program, inherited } => {
                if let Err(error) = sys::process::write_no_core() {
                    return error;
                }
                for descriptor in inherited {
                    if let Err(error) = sys::fd::keep_over_exec(descriptor) {
                        return error;
                    }
                }
                program.exec(&self.args, &self.env)
            }
            Target::Linux { path } => {
                sys::memory::allow_huge_pages();
                sys::exec::exec_path(path, &self.args, &self.env)
            }
        }
    }

    /// Has the kernel end this process when the shim's only thread ends, however it ends.
    ///
    /// It must be asked for here: the setting is cleared by a fork and by a change of user.
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
