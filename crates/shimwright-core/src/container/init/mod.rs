//! The first process of a container, and each further one: from a fork of the launcher to a process that
//! waits for `start`.
//!
//! ```text
//! launcher ── fork ──▶ first process
//!     │                  namespaces, mounts
//!     │◀── Hooks ────────│
//!     │─── go on ───────▶│  root, terminal, attributes, user, capabilities, filter
//!     │◀── Ready ────────│
//!   answers, ends        waits for `start`, then executes its program
//! ```
//!
//! It does what `libcontainer/standard_init_linux.go` and `setns_init_linux.go` of runc do, in their
//! order. A container with a user namespace has one more process in between, which enters that
//! ([`user`]). See `docs/decisions/0017-first-process.md`.

mod attributes;
mod console;
pub(super) mod hooks;
mod identity;
mod namespaces;
mod network;
mod seccomp;
mod setup;
mod user;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Hooks, Process, Spec};
use rustix::pipe::PipeFlags;

use super::executor::Exec;
use super::root::Root;
use crate::engine::BoxError;
use crate::engine::exit::Status;
use crate::error::{self, Context, Error};
use crate::stdio::Streams;
use crate::sys;
pub(super) use namespaces::Plan as Namespaces;
use setup::Channel;
pub(super) use setup::{Launched, Outside};
pub(super) use user::become_root;

/// What the first process and a further one have in common.
pub(super) struct Common<'a> {
    pub(super) spec: &'a Spec,
    pub(super) process: &'a Process,
    pub(super) exec: &'a Exec,
    /// Its streams, unless it is to make its own terminal.
    pub(super) streams: Option<&'a Streams>,
    /// Whether it is in a user namespace of the container, in which it could raise no limit.
    pub(super) has_user_namespace: bool,
    /// Whether it gets a session keyring of its own.
    pub(super) new_keyring: bool,
    /// The `/proc` of the node: a container may have none.
    pub(super) proc: OwnedFd,
    /// On which it waits for `start`.
    pub(super) start: &'a Start,
}

/// The pipe on which a process waits to be told to go on.
#[derive(Debug)]
pub(super) struct Start {
    waits: OwnedFd,
    /// A byte here has the process go on; it ends if this is closed before.
    pub(super) tells: OwnedFd,
}

impl Start {
    pub(super) fn new() -> Result<Self, Error> {
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let (waits, tells) = pipe.context("make a pipe")?;
        Ok(Self { waits, tells })
    }

    /// In the process that waits: gives up the other end, of which it has a copy and would never see the
    /// end otherwise.
    fn leave(&self) {
        sys::fd::close(self.tells.as_raw_fd());
    }

    /// Waits; `false` if nobody is going to tell the process to go on.
    fn is_told(&self) -> bool {
        let mut byte = [0];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.waits, &mut byte));
        matches!(read, Ok(1))
    }
}

/// The first process of a container.
pub(super) struct First<'a> {
    pub(super) common: Common<'a>,
    pub(super) root: Root,
    pub(super) namespaces: Namespaces,
    /// What hooks are told about the container.
    pub(super) state: &'a hooks::State,
}

impl First<'_> {
    /// Turns the calling process, which has been forked for that, into the first one.
    ///
    /// # Errors
    ///
    /// Why it cannot be; the container is not to be.
    fn set_up(&self, channel: &Channel) -> Result<(), Error> {
        let common = &self.common;
        let (spec, process) = (common.spec, common.process);
        let linux = spec.linux().as_ref();
        common.begin()?;
        self.namespaces.enter().context("enter the namespaces")?;
        if self.namespaces.has_new_network() {
            sys::process::set_loopback_up().context("set the loopback device up")?;
        }
        self.root.mount().context("mount the root file system")?;
        if let Some(hooks) = spec.hooks() {
            self.run_create_hooks(hooks, channel)?;
        }
        self.root.enter().context("enter the root file system")?;
        make_cwd(process.cwd())?;
        common.terminal(channel, true)?;
        names(spec)?;
        attributes::sysctls(linux, &common.proc)?;
        self.root.seal().context("seal the root file system")?;
        if let Some(linux) = linux {
            network::receive_devices(linux, channel).context("set up the network devices")?;
            attributes::memory_policy(linux)?;
        }
        common.finish(channel)
    }

    fn run_create_hooks(&self, of: &Hooks, channel: &Channel) -> Result<(), Error> {
        // Those of the launcher, in the namespaces of the node.
        channel.ask_for_hooks()?;
        let Some(create_container) = of.create_container() else {
            return Ok(());
        };
        self.root.change_to().context("enter the root directory")?;
        let state = self.state.creating(rustix::process::getpid());
        hooks::run(hooks::Stage::CreateContainer, create_container, &state)
    }

    /// Does what is left after `start`; does not return.
    fn go_on(&self) -> ! {
        let common = &self.common;
        if !common.start.is_told() {
            sys::process::exit_now(0);
        }
        let hooks = common.spec.hooks().as_ref();
        if let Some(hooks) = hooks.and_then(|hooks| hooks.start_container().as_ref()) {
            let state = self.state.created(rustix::process::getpid());
            let env = common.process.env().as_deref().unwrap_or_default();
            if let Err(error) = hooks::run_in_container(hooks, &state, env) {
                common
                    .exec
                    .give_up(&error::chain(&error), Status::ENGINE_FAILED.code())
            }
        }
        common.exec.run()
    }

    /// The whole life of the process that was forked, up to its program.
    fn live(self, channel: Channel) -> ! {
        let outcome = self.set_up(&channel);
        self.common.after(outcome, channel);
        self.go_on()
    }
}

/// A further process of a container.
pub(super) struct Further<'a, E> {
    pub(super) common: Common<'a>,
    /// Enters what is the container's.
    pub(super) enter: E,
}

impl<E: Fn() -> Result<(), BoxError>> Further<'_, E> {
    fn set_up(&self, channel: &Channel) -> Result<(), Error> {
        let common = &self.common;
        common.begin()?;
        (self.enter)().context("enter the container")?;
        common.terminal(channel, false)?;
        common.finish(channel)
    }

    fn live(self, channel: Channel) -> ! {
        let outcome = self.set_up(&channel);
        self.common.after(outcome, channel);
        if !self.common.start.is_told() {
            sys::process::exit_now(0);
        }
        self.common.exec.run()
    }
}

impl Common<'_> {
    /// What comes first, with the privileges of the node.
    fn begin(&self) -> Result<(), Error> {
        self.start.leave();
        rustix::process::setsid().context("make a session")?;
        if let Some(streams) = self.streams {
            take_over(streams).context("connect the streams")?;
        }
        if self.new_keyring {
            sys::process::new_session_keyring().context("make a session keyring")?;
        }
        Ok(())
    }

    /// Makes a terminal from the `devpts` of the container, if the process is to have one.
    fn terminal(&self, channel: &Channel, is_first: bool) -> Result<(), Error> {
        if self.streams.is_some() {
            return Ok(());
        }
        let master = console::make(is_first).context("make the terminal")?;
        channel.send_terminal(master)
    }

    /// The attributes of the process, its user, its capabilities and its filter of system calls.
    fn finish(&self, channel: &Channel) -> Result<(), Error> {
        let (spec, process) = (self.spec, self.process);
        let linux = spec.linux().as_ref();
        attributes::set(process, linux)?;
        attributes::labels(process, &self.proc)?;
        // As late as possible, as what is still to be done may take more than they let it.
        if self.has_user_namespace {
            channel.ask_for_limits()?;
        } else {
            attributes::limit(None, process)?;
        }
        let filter = linux.and_then(|linux| linux.seccomp().as_ref());
        let no_new_privileges = process.no_new_privileges() == Some(true);
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
        } else {
            // Without it, a filter is a privileged operation.
            seccomp::load(filter, channel)?;
        }
        identity::assume(process, self.exec.kind())?;
        self.exec.prepare().context("prepare for the program")?;
        // Whoever in the container may look into this process, which waits for `start` soon, finds no way
        // to the node.
        self.exec
            .close_the_rest()
            .context("close the files of the launcher")?;
        if no_new_privileges {
            // What comes after is `write`, `read` and `execve`.
            seccomp::load(filter, channel)?;
        }
        Ok(())
    }

    /// Tells the launcher how it went; does not return if it did not.
    fn after(&self, outcome: Result<(), Error>, channel: Channel) {
        let told = match outcome {
            Ok(()) => channel.ready(),
            Err(error) => {
                channel.failed(&error);
                Err(error)
            }
        };
        if told.is_err() {
            sys::process::exit_now(Status::ENGINE_FAILED.code());
        }
    }
}

/// Has the streams be those of this process.
fn take_over(streams: &Streams) -> std::io::Result<()> {
    rustix::stdio::dup2_stdin(&streams.stdin)?;
    rustix::stdio::dup2_stdout(&streams.stdout)?;
    Ok(rustix::stdio::dup2_stderr(&streams.stderr)?)
}

/// The names of the container in its UTS namespace.
fn names(spec: &Spec) -> Result<(), Error> {
    if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).context("set the host name")?;
    }
    if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).context("set the domain name")?;
    }
    Ok(())
}

/// Makes the working directory of the first process, as runc does. The root is the container's.
fn make_cwd(cwd: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    if cwd.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(cwd)
        .with_context(|| format!("make the working directory {}", cwd.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Forked;
    use rustix::process::{Pid, WaitOptions};

    /// Whether a process that waits was told to go on, if this is done meanwhile.
    fn was_told(meanwhile: impl FnOnce(Start)) -> bool {
        let start = Start::new().unwrap();
        let Forked::Parent(child) = sys::process::fork().unwrap() else {
            start.leave();
            sys::process::exit_now(u8::from(start.is_told()));
        };
        meanwhile(start);
        let waited = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty())
        });
        let (_, status) = waited.unwrap().unwrap();
        status.exit_status() == Some(1)
    }

    #[test]
    fn a_process_that_nobody_tells_to_go_on_ends() {
        assert!(!was_told(drop));
        assert!(was_told(|start| {
            rustix::io::write(&start.tells, &[1]).unwrap();
        }));
    }
}
