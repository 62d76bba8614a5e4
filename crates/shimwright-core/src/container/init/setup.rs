//! The conversation between the launcher and a process that it makes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Process, Spec};
use rustix::process::{Pid, PidfdGetfdFlags, Signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::hooks::{self, Stage};
use super::namespaces::{User, Wanted};
use super::network::Addresses;
use super::{First, Further, attributes, network, seccomp, user};
use crate::config::identity::ProcessId;
use crate::engine::BoxError;
use crate::error::{self, Context, Error};
use crate::process::handle::Handle;
use crate::process::{launcher, message};
use crate::sys;
use crate::sys::process::{Cloned, NewProcess};

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// It is in a new user namespace, whose maps are to be written.
    Maps,
    /// It has made this process, which goes on in its place.
    Cloned(i32, Handle),
    /// Its limits are to be set.
    Limits,
    /// The hooks of the launcher are to run.
    Hooks,
    /// The devices of the network are to be moved.
    Devices,
    /// The other end of its terminal.
    Terminal(Handle),
    /// Its filter asks a listener by its descriptor of this number.
    Listener(RawFd),
    /// It waits for `start`.
    Ready,
    /// It cannot be.
    Failed { code: error::Code, message: String },
}

/// What the launcher answers to a request.
#[derive(Debug, Serialize, Deserialize)]
struct GoOn;

/// The process's end.
///
/// Most of it works with `read` and `write` alone, as a filter of system calls may be loaded.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    pub(super) fn ask_for_maps(&self) -> Result<(), Error> {
        self.ask(&Said::Maps).map(|GoOn| ())
    }

    pub(super) fn cloned(&self, pid: i32, handle: OwnedFd) -> Result<(), Error> {
        let said = Said::Cloned(pid, handle.into());
        message::send(&self.0, &said).context("hand over the first process")
    }

    pub(super) fn ask_for_hooks(&self) -> Result<(), Error> {
        self.ask(&Said::Hooks).map(|GoOn| ())
    }

    pub(super) fn ask_for_limits(&self) -> Result<(), Error> {
        self.ask(&Said::Limits).map(|GoOn| ())
    }

    pub(super) fn ask_for_devices(&self) -> Result<Addresses, Error> {
        self.ask(&Said::Devices)
    }

    pub(super) fn ask_for_listener(&self, descriptor: RawFd) -> Result<(), Error> {
        self.ask(&Said::Listener(descriptor)).map(|GoOn| ())
    }

    pub(super) fn send_terminal(&self, master: OwnedFd) -> Result<(), Error> {
        let said = Said::Terminal(master.into());
        message::send(&self.0, &said).context("hand over the terminal")
    }

    pub(super) fn ready(self) -> Result<(), Error> {
        self.tell(&Said::Ready)
    }

    pub(super) fn failed(self, error: &Error) {
        let mut message = error::chain(error);
        message.truncate(message.floor_char_boundary(message::MAX / 4));
        let code = error.code();
        // Nobody is listening if the launcher has died.
        let _ = self.tell(&Said::Failed { code, message });
    }

    fn tell(&self, said: &Said) -> Result<(), Error> {
        let tell = || -> io::Result<()> {
            let text = serde_json::to_vec(said)?;
            rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &text))?;
            Ok(())
        };
        tell().context("speak to the launcher")
    }

    fn ask<T: DeserializeOwned>(&self, said: &Said) -> Result<T, Error> {
        self.tell(said)?;
        let hear = || -> io::Result<T> {
            let mut text = vec![0; message::MAX];
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut text))?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(serde_json::from_slice(&text[..length])?)
        };
        hear().context("hear from the launcher")
    }
}

/// What the launcher does for a process that it makes.
pub(in crate::container) struct Outside<'a> {
    pub(in crate::container) spec: &'a Spec,
    pub(in crate::container) process: &'a Process,
    /// The v2 group in which the process is made. It joins others itself.
    pub(in crate::container) cgroup: Option<BorrowedFd<'a>>,
    /// What hooks are told about the container.
    pub(in crate::container) state: &'a hooks::State,
    /// Whether it is an addition to a container that is there.
    pub(in crate::container) is_further: bool,
}

/// A process that has been made, and waits for `start`.
#[derive(Debug)]
pub(crate) struct Launched {
    pid: Pid,
    pub(crate) handle: OwnedFd,
    /// The other end of the terminal that it has made.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Launched {
    /// Which process it is.
    ///
    /// # Errors
    ///
    /// It has ended: what has its pid may be another process.
    pub(crate) fn identity(&self) -> Result<ProcessId, Error> {
        let identify = || -> io::Result<ProcessId> {
            let found = ProcessId::of(self.pid)?;
            if sys::fd::becomes_readable(&self.handle, Instant::now())? {
                return Err(io::Error::other("it has ended"));
            }
            Ok(found)
        };
        identify().context("inspect the process")
    }
}

impl Outside<'_> {
    /// Makes the first process of a container. `join` runs in it before anything else.
    ///
    /// # Errors
    ///
    /// Why there is none; nothing is left of it.
    pub(in crate::container) fn first(
        &self,
        mut first: First<'_>,
        join: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Launched, Error> {
        let maps = match &first.namespaces.user {
            Some(User::New(maps)) => Some(maps.clone()),
            _ => None,
        };
        let has_user = first.namespaces.user.is_some();
        let new = NewProcess {
            pid_namespace: !has_user && matches!(first.namespaces.pid, Some(Wanted::New)),
            cgroup: self.cgroup,
        };
        let entered = first.namespaces.enter_for_children();
        let entered = entered.context("enter the namespaces of the container")?;
        let made = self.make(&new, |channel| {
            if let Err(error) = join().and_then(|()| user::pass(&mut first.namespaces, &channel)) {
                channel.failed(&error);
                sys::process::exit_now(1);
            }
            first.live(channel)
        });
        // Hooks belong outside, those after a failure too.
        let returned = entered.return_to();
        let made = made?;
        made.end_unless(returned.context("return to the namespaces of the node"))?;
        made.serve(self, maps.as_ref())
    }

    /// Makes a further process of a container. `join` runs in it before anything else.
    ///
    /// # Errors
    ///
    /// Why there is none; nothing is left of it.
    pub(in crate::container) fn further<E: Fn() -> Result<(), BoxError>>(
        &self,
        further: Further<'_, E>,
        join: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Launched, Error> {
        let new = NewProcess {
            pid_namespace: false,
            cgroup: self.cgroup,
        };
        let made = self.make(&new, |channel| {
            if let Err(error) = join() {
                channel.failed(&error);
                sys::process::exit_now(1);
            }
            further.live(channel)
        })?;
        made.serve(self, None)
    }

    fn make(&self, new: &NewProcess<'_>, live: impl FnOnce(Channel)) -> Result<Making, Error> {
        let (ours, theirs) = message::pair().context("make a socket for the process")?;
        match sys::process::clone(new).context("make the process")? {
            Cloned::New => {
                // With our end closed, a launcher that is killed is noticed.
                drop(ours);
                launcher::leave_the_answer();
                live(Channel(theirs));
                sys::process::exit_now(1)
            }
            Cloned::Caller(pid, handle) => Ok(Making {
                pid: Pid::from_raw(pid).ok_or_else(|| Error::invalid("no pid"))?,
                handle,
                socket: ours,
            }),
        }
    }
}

/// How long a process that was killed may take to end.
const END_BOUND: Duration = Duration::from_secs(4);

/// A process that is being made. It is a child of the shim process, as the launcher is, so that it can ask
/// for its end with the shim at once. So the shim collects it, and only the handle surely means it.
#[derive(Debug)]
struct Making {
    pid: Pid,
    handle: OwnedFd,
    socket: OwnedFd,
}

impl Making {
    /// Ends the process if this is an error.
    fn end_unless<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_err() {
            // It may have ended by itself.
            let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
            // Its end is not ours to collect, but nothing of it may be there when we say that it failed.
            let _ = sys::fd::becomes_readable(&self.handle, Instant::now() + END_BOUND);
        }
        outcome
    }

    /// Does what the process asks for until it is ready.
    fn serve(
        mut self,
        outside: &Outside<'_>,
        maps: Option<&user::Maps>,
    ) -> Result<Launched, Error> {
        let mut terminal = None;
        loop {
            let said = message::receive::<Said>(&self.socket);
            let said = self.end_unless(said.context("hear from the process"))?;
            let done = match said {
                None => Err(Error::Failed {
                    action: "set up the process".to_owned(),
                    source: "it has ended".into(),
                }),
                Some(Said::Failed { code, message }) => Err(Error::Remote { code, message }),
                Some(Said::Terminal(master)) => {
                    terminal = Some(master.into());
                    Ok(())
                }
                Some(Said::Cloned(pid, handle)) => self.go_on_with(pid, handle.into()),
                Some(Said::Ready) => break,
                Some(other) => self.answer(other, outside, maps),
            };
            self.end_unless(done)?;
        }
        Ok(Launched {
            pid: self.pid,
            handle: self.handle,
            terminal,
        })
    }

    /// The process has made another one, which takes its place, and ends.
    fn go_on_with(&mut self, pid: i32, handle: OwnedFd) -> Result<(), Error> {
        self.pid = Pid::from_raw(pid).ok_or_else(|| Error::invalid("no pid"))?;
        self.handle = handle;
        Ok(())
    }

    fn answer(
        &self,
        said: Said,
        outside: &Outside<'_>,
        maps: Option<&user::Maps>,
    ) -> Result<(), Error> {
        let (spec, state) = (outside.spec, outside.state);
        match said {
            Said::Maps => {
                let maps = maps.ok_or_else(|| Error::invalid("no maps of ids"))?;
                maps.write(self.pid)
                    .context("write the maps of the user namespace")?;
            }
            Said::Limits => attributes::limit(Some(self.pid), outside.process)?,
            Said::Hooks => {
                let state = state.creating(self.pid);
                for (stage, hooks) in spec.hooks().iter().flat_map(|hooks| {
                    [
                        (Stage::Prestart, hooks.prestart()),
                        (Stage::CreateRuntime, hooks.create_runtime()),
                    ]
                }) {
                    hooks::run(stage, hooks.as_deref().unwrap_or_default(), &state)?;
                }
            }
            Said::Devices => {
                let linux = spec.linux().as_ref();
                let linux = linux.ok_or_else(|| Error::invalid("no section linux"))?;
                return self.reply(&network::move_devices(linux, self.pid)?);
            }
            Said::Listener(descriptor) => {
                let flags = PidfdGetfdFlags::empty();
                let listener = rustix::process::pidfd_getfd(&self.handle, descriptor, flags);
                let listener = listener.context("take over the listener's descriptor")?;
                let filter = spec
                    .linux()
                    .as_ref()
                    .and_then(|linux| linux.seccomp().as_ref());
                let filter = filter.ok_or_else(|| Error::invalid("no filter"))?;
                let state = if outside.is_further {
                    state.running(Some(self.pid))
                } else {
                    state.creating(self.pid)
                };
                seccomp::send(filter, state, self.pid, &listener)?;
            }
            other => return Err(Error::invalid(format!("unexpected: {other:?}"))),
        }
        self.reply(&GoOn)
    }

    fn reply(&self, answer: &impl Serialize) -> Result<(), Error> {
        message::send(&self.socket, answer).context("answer the process")
    }
}
