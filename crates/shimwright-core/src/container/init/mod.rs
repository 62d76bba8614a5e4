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

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, Process, Spec};

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
    /// The read end of the pipe on which it waits for `start`.
    pub(super) start: &'a OwnedFd,
}

/// The first process of a container.
pub(super) struct First<'a> {
    pub(super) common: Common<'a>,
    pub(super) root: Root,
    /// Its path, seen from the node.
    pub(super) root_path: PathBuf,
    pub(super) namespaces: Namespaces,
    /// What hooks are told about the container.
    pub(super) state: hooks::State,
}

impl First<'_> {
    /// Turns the calling process, which has been forked for that, into the first one.
    ///
    /// # Errors
    ///
    /// Why it cannot be; the container is not to be.
    fn become_it(&self, channel: &Channel) -> Result<(), Error> {
        let common = &self.common;
        let (spec, process) = (common.spec, common.process);
        let linux = spec.linux().as_ref();
        common.begin()?;
        self.namespaces.enter().context("enter the namespaces")?;
        if self.namespaces.has_new_network() {
            network::loopback_up().context("set the loopback device up")?;
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
        rustix::process::chdir(&self.root_path).context("enter the root directory")?;
        let state = self.state.creating(rustix::process::getpid());
        hooks::run(hooks::Stage::CreateContainer, create_container, &state)
    }

    /// Does what is left after `start`; does not return.
    fn go_on(&self) -> ! {
        let common = &self.common;
        let wanted = common.wait_for_start();
        if !wanted {
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
        let outcome = self.become_it(&channel);
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
    fn become_it(&self, channel: &Channel) -> Result<(), Error> {
        let common = &self.common;
        common.begin()?;
        (self.enter)().context("enter the container")?;
        common.terminal(channel, false)?;
        common.finish(channel)
    }

    fn live(self, channel: Channel) -> ! {
        let outcome = self.become_it(&channel);
        self.common.after(outcome, channel);
        if !self.common.wait_for_start() {
            sys::process::exit_now(0);
        }
        self.common.exec.run()
    }
}

impl Common<'_> {
    /// What comes first, with the privileges of the node.
    fn begin(&self) -> Result<(), Error> {
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

    /// Waits for `start`. Nobody is going to ask for it when the other end of the pipe is closed.
    fn wait_for_start(&self) -> bool {
        let mut byte = [0];
        matches!(
            rustix::io::retry_on_intr(|| rustix::io::read(self.start, &mut byte)),
            Ok(1)
        )
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
