//! Removes what is left of a container. Every function here is idempotent.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::process::{Pid, Signal};

use super::init::hooks::{self, Stage, State};
use super::rootfs;
use crate::cgroup::LOOK;
use crate::code::compiler;
use crate::config::bundle::Bundle;
use crate::config::identity::ProcessId;
use crate::config::node;
use crate::config::record::Record;
use crate::error::{Context, Error};
use crate::sys;

/// How long killed processes may take to end, and their cgroups to become empty.
pub(crate) const BOUND: Duration = Duration::from_secs(4);

/// How long loggers may read on when there is nobody left to wait for them. containerd waits 5
/// seconds for all of it.
const LOGGER_BOUND: Duration = Duration::from_secs(1);

/// How long a compiler that was killed may take to end if nobody waits for its clean-up: its memory
/// may be gigabytes.
pub(crate) const PATIENT: Duration = Duration::from_secs(60);

/// Undoes a create that failed, or that a dead shim has left behind. What a killed launcher has left
/// of a compile may take as long as `compile`, for example [`BOUND`] if somebody waits.
pub(crate) fn undo(bundle: &Bundle, record: &Record, compile: Duration) -> Result<(), Error> {
    kill(record)?;
    end_loggers(bundle).context("end the container's loggers")?;
    sweep_compiles(compile);
    remove(bundle, record)
}

/// A launcher that was killed has left the cgroup of its compile.
fn sweep_compiles(bound: Duration) {
    let swept = node::Config::read().and_then(|config| compiler::sweep(config.compile(), bound));
    if let Err(error) = swept {
        tracing::warn!(%error, "cannot look for the cgroups of compiles");
    }
}

/// Ends what reads the outputs of a container without processes. It sees their end, so it mostly
/// ends by itself when it has read the rest.
fn end_loggers(bundle: &Bundle) -> io::Result<()> {
    let deadline = Instant::now() + LOGGER_BOUND;
    let loggers: Vec<_> = bundle
        .loggers()
        .iter()
        .filter_map(ProcessId::open)
        .collect();
    for logger in loggers {
        if sys::fd::wait_readable(&logger, deadline).is_err() {
            // It may have ended meanwhile.
            let _ = rustix::process::pidfd_send_signal(&logger, Signal::KILL);
            sys::fd::wait_readable(&logger, Instant::now() + LOGGER_BOUND)?;
        }
    }
    Ok(())
}

/// Ends the first process and everything in the container's cgroups.
pub(crate) fn kill(record: &Record) -> Result<(), Error> {
    let init = record.init.and_then(|init| Some((init.pid, init.open()?)));
    if let Some((_, handle)) = &init {
        // It may have ended meanwhile.
        let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
    }
    record
        .cgroups
        .kill_all(BOUND)
        .context("end the container's processes")?;
    if let Some((pid, handle)) = init {
        wait_for_end(pid, &handle).context("wait for the container's first process")?;
    }
    Ok(())
}

/// Waits until a killed first process holds nothing any more.
///
/// The kernel reports its end only when every process of its pid namespace has been reaped
/// (`pid_namespaces(7)`). An exec whose shim has died is reaped by whoever adopted it, which may
/// take its time: so it also counts as ended when its memory, and with it its program, is gone.
fn wait_for_end(pid: i32, handle: &OwnedFd) -> io::Result<()> {
    let deadline = Instant::now() + BOUND;
    loop {
        let now = Instant::now();
        if sys::fd::becomes_readable(handle, deadline.min(now + LOOK))? {
            return Ok(());
        }
        match std::fs::read_link(format!("/proc/{pid}/exe")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            _ if now >= deadline => return Err(io::ErrorKind::TimedOut.into()),
            _ => {}
        }
    }
}

/// Removes the cgroups, the mounts and the state of a container without processes, and
/// runs the hooks that belong there.
///
/// Launcher process, or the process of the `delete` command: hooks may take their time.
pub(crate) fn remove(bundle: &Bundle, record: &Record) -> Result<(), Error> {
    // Something may have been moved there from outside.
    record
        .cgroups
        .kill_all(BOUND)
        .context("end the container's processes")?;
    record
        .cgroups
        .remove(BOUND)
        .context("remove the container's cgroups")?;
    if record.poststop
        && let Err(error) = run_poststop_hooks(bundle, record)
    {
        let error = crate::error::chain(&error);
        tracing::warn!(error, id = record.id, "cannot run the poststop hooks");
    }
    if record.mounted {
        // Most containers have one mount, for which the mount table need not be read.
        let unmount = if record.mounted_below {
            rootfs::unmount
        } else {
            rootfs::unmount_one
        };
        unmount(&bundle.rootfs())
            .with_context(|| format!("unmount {}", bundle.rootfs().display()))?;
    }
    remove_directory(&bundle.private())
        .with_context(|| format!("remove {}", bundle.private().display()))
}

/// "If any poststop hook fails, the runtime must log a warning, but the remaining hooks and
/// lifecycle continue" (OCI runtime spec, Lifecycle).
fn run_poststop_hooks(bundle: &Bundle, record: &Record) -> Result<(), Error> {
    let spec = bundle.spec()?;
    let mut run = record.clone();
    run.poststop = false;
    // Before they run: none of them runs twice if this process is killed.
    bundle.write_record(&run)?;
    let hooks = spec.hooks().as_ref();
    let hooks = hooks.and_then(|hooks| hooks.poststop().as_deref());
    let state = State::new(&record.id, bundle.directory(), &spec)?;
    hooks::run_each(Stage::Poststop, hooks.unwrap_or_default(), &state.stopped());
    Ok(())
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs the hooks that belong after `start`, in the namespaces of the node.
///
/// Launcher process. A failed one is logged, as the guest runs already: "the runtime must log a
/// warning, but lifecycle continues as if the hook had succeeded" (OCI runtime spec 1.2).
pub(crate) fn run_poststart_hooks(
    bundle: &Bundle,
    id: &str,
    pid: Option<i32>,
    spec: &Spec,
) -> Result<(), Error> {
    let hooks = spec.hooks().as_ref();
    let hooks = hooks.and_then(|hooks| hooks.poststart().as_deref());
    let state = State::new(id, bundle.directory(), spec)?.running(pid.and_then(Pid::from_raw));
    hooks::run_each(Stage::Poststart, hooks.unwrap_or_default(), &state);
    Ok(())
}
