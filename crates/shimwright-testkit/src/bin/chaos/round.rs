//! One fault: a containerd of its own, and what must be true when the fault is over.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use shimwright_guests::{CAT, Guest, HELLO, IDLE, MEMORY, SPIN};
use shimwright_testkit::protos::ttrpc::{self, Code};
use shimwright_testkit::{Bundle, Containerd, Output, Result, Shim, poll_for};

/// How long any call may take, with what is slow about a loaded machine.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// How long a cleaner may take, and what has been killed may go on (containerd waits 5 seconds).
pub(crate) const CLEAN_UP: Duration = Duration::from_secs(5);

/// The id of the container that faults happen to.
pub(crate) const ID: &str = "a";

/// A containerd and a source of random choices.
pub(crate) struct Round {
    pub(crate) containerd: Containerd,
    random: Mutex<fastrand::Rng>,
    faults: AtomicUsize,
}

/// A shim, and the bundle of the container that faults happen to.
pub(crate) struct Setting {
    pub(crate) bundle: Bundle,
    pub(crate) shim: Shim,
    pub(crate) stdout: Output,
}

impl Round {
    /// Plays one round, and says how many faults there were.
    pub(crate) fn play(
        shim: &Path,
        seed: u64,
        run: fn(&Self) -> Result<()>,
    ) -> (usize, Result<()>) {
        let containerd = match Containerd::with_shim(shim) {
            Ok(containerd) => containerd,
            Err(error) => return (0, Err(error)),
        };
        let round = Self {
            containerd,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            faults: AtomicUsize::new(0),
        };
        let outcome = round.configure().and_then(|()| run(&round));
        let outcome = outcome.and_then(|()| round.clean());
        let outcome = outcome.and_then(|()| round.again());
        (round.faults.into_inner(), outcome)
    }

    /// On one of three nodes, all containers share a shim process.
    fn configure(&self) -> Result<()> {
        match self.below(3) {
            0 => self.containerd.configure("[shim]\nshare = 'node'\n"),
            _ => Ok(()),
        }
    }

    /// Counts a fault.
    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// A random number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.u64(..bound)
    }

    /// A random time below `bound`.
    pub(crate) fn time(&self, bound: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX)))
    }

    /// A random one of these.
    pub(crate) fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap_or_default()]
    }

    /// A bundle with a guest of any kind.
    pub(crate) fn any_bundle(&self) -> Result<Bundle> {
        let guest = self.one_of(&[HELLO, IDLE, SPIN, MEMORY, CAT]);
        let bundle = self.bundle(guest)?;
        Ok(if self.below(2) == 0 {
            bundle.overlay()?
        } else {
            bundle
        })
    }

    /// A bundle with a guest.
    pub(crate) fn bundle(&self, guest: Guest) -> Result<Bundle> {
        self.containerd.bundle(ID)?.guest(guest)
    }

    /// A shim that serves a bundle whose container has not been created.
    pub(crate) fn started(&self, mut bundle: Bundle) -> Result<Setting> {
        let stdout = bundle.stdout()?;
        let shim = self.containerd.start(&bundle)?;
        Ok(Setting {
            bundle,
            shim,
            stdout,
        })
    }

    /// A shim with a container that has been created.
    pub(crate) fn created(&self, bundle: Bundle) -> Result<Setting> {
        let setting = self.started(bundle)?;
        setting.shim.create(&setting.bundle)?;
        Ok(setting)
    }

    /// A shim with an idle guest that runs.
    pub(crate) fn idle(&self) -> Result<Setting> {
        let setting = self.created(self.bundle(IDLE)?.overlay()?)?;
        setting.shim.start(ID)?;
        setting.stdout.wait_for("ready")?;
        Ok(setting)
    }

    /// Makes a call during which a fault happens after a random time below `bound`.
    pub(crate) fn during<T: Send>(
        &self,
        bound: Duration,
        fault: impl FnOnce() + Send,
        call: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        self.fault();
        let delay = self.time(bound);
        thread::scope(|scope| {
            let call = scope.spawn(move || timed("a call", CALL, call));
            // The moment is what is random here.
            thread::sleep(delay);
            fault();
            call.join()
                .unwrap_or_else(|_| Err("a call panicked".into()))
        })
    }

    /// Has so many clients do something at the same time, each of which counts as a fault.
    pub(crate) fn at_once<T: Send>(
        &self,
        number: usize,
        client: impl Fn(usize) -> T + Sync,
    ) -> Result<Vec<T>> {
        let client = &client;
        thread::scope(|scope| {
            let clients: Vec<_> = (0..number)
                .map(|index| {
                    self.fault();
                    scope.spawn(move || client(index))
                })
                .collect();
            let join = |client: thread::ScopedJoinHandle<'_, T>| {
                client.join().map_err(|_| "a client panicked".into())
            };
            clients.into_iter().map(join).collect()
        })
    }

    /// Kills a process of the shim's executable, or of its container.
    pub(crate) fn kill_any(&self) -> impl FnOnce() + Send + '_ {
        let choice = usize::try_from(self.below(1 << 16)).unwrap_or_default();
        let containerd = &self.containerd;
        move || {
            let processes = containerd.snapshot().processes;
            if let Some(process) = processes.iter().nth(choice % processes.len().max(1)) {
                process.kill();
            }
        }
    }

    /// Kills the shim process.
    pub(crate) fn kill_shim(&self, setting: &Setting) -> Result<()> {
        self.fault();
        let pid = setting.shim.connect_task(ID)?.shim_pid;
        signal(pid, Signal::KILL);
        self.lost(&setting.shim)
    }

    /// Waits until the connection to a shim is lost, as containerd does before it cleans up.
    pub(crate) fn lost(&self, shim: &Shim) -> Result<()> {
        let lost = poll_for(CLEAN_UP, || is_lost(shim).then_some(()));
        lost.ok_or_else(|| "a killed shim still answers".into())
    }

    /// Does what containerd does after a fault: it ends a task that is there, and cleans up after
    /// a shim that is gone. Whatever has happened, nothing may be left.
    pub(crate) fn recover(&self, bundle: &Bundle, shim: &Shim) -> Result<()> {
        if self.end(shim)? {
            return Ok(());
        }
        self.clean_after(bundle)
    }

    /// Ends a task that may be there, and the shim. Returns whether there was one to do it.
    fn end(&self, shim: &Shim) -> Result<bool> {
        loop {
            match timed("State", CALL, || shim.state(ID))? {
                Err(error) if is_code(&error, Code::NOT_FOUND) => {
                    shim.shutdown_after(ID);
                    return Ok(true);
                }
                Err(error) if code(&error).is_none() => return Ok(false),
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            match timed("Kill", CALL, || shim.kill(ID, 9))? {
                Ok(()) => {}
                // It has ended meanwhile.
                Err(error) if is_code(&error, Code::NOT_FOUND) => {}
                Err(error) if code(&error).is_none() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            match timed("Wait", CALL, || shim.wait(ID))? {
                Ok(_) => {}
                Err(error) if is_code(&error, Code::NOT_FOUND) => {}
                Err(error) if code(&error).is_none() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            match timed("Delete", CALL, || shim.delete(ID))? {
                Ok(_) => {}
                Err(error) if is_code(&error, Code::NOT_FOUND) => {}
                Err(error) if code(&error).is_none() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Runs the `delete` command, whose answer must be the truth about a killed container.
    pub(crate) fn clean_after(&self, bundle: &Bundle) -> Result<()> {
        let delete = || self.containerd.delete(bundle.directory(), bundle.id());
        let answer = timed("the delete command", CLEAN_UP, delete)??;
        if answer.exit_status != 137 {
            return Err(format!("delete says status {}", answer.exit_status).into());
        }
        Ok(())
    }

    /// Checks that nothing is left.
    fn clean(&self) -> Result<()> {
        let clean = poll_for(CLEAN_UP, || {
            self.containerd.snapshot().is_empty().then_some(())
        });
        if clean.is_none() {
            let left = self.containerd.snapshot();
            return Err(format!("left behind: {left:#?}").into());
        }
        let state = self.containerd.directory().join("bundles/a/shimwright");
        if state.exists() {
            return Err(format!("left behind: {}", state.display()).into());
        }
        Ok(())
    }

    /// Checks that the same id can be used again.
    fn again(&self) -> Result<()> {
        let directory = self.containerd.directory();
        for name in ["bundles", "images"] {
            let path = directory.join(name);
            if path.exists() {
                fs::remove_dir_all(path)?;
            }
        }
        let setting = self.created(self.bundle(HELLO)?.overlay()?)?;
        setting.shim.start(ID)?;
        let status = setting.shim.wait(ID)?.exit_status;
        let output = setting.stdout.text()?;
        setting.shim.delete(ID)?;
        if (status, output.as_str()) != (0, "Hello from Wasm\n") {
            return Err(format!("the next run ended with {status} and wrote {output:?}").into());
        }
        setting.shim.shutdown_after(ID);
        self.clean()
    }
}

/// What a call returns, unless it takes longer than it may.
pub(crate) fn timed<T>(what: &str, bound: Duration, call: impl FnOnce() -> T) -> Result<T> {
    let begin = Instant::now();
    let result = call();
    let time = begin.elapsed();
    if time > bound {
        return Err(format!("{what} took {:.1} s", time.as_secs_f32()).into());
    }
    Ok(result)
}

/// Sends a signal to a process, which may be gone.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| rustix::process::kill_process(pid, signal));
}

/// The code of an error that a shim gave; none if there was no answer.
pub(crate) fn code(error: &ttrpc::Error) -> Option<Code> {
    match error {
        ttrpc::Error::RpcStatus(status) => Some(status.code()),
        _ => None,
    }
}

pub(crate) fn is_code(error: &ttrpc::Error, wanted: Code) -> bool {
    code(error) == Some(wanted)
}

fn is_lost(shim: &Shim) -> bool {
    shim.connect_task(ID)
        .is_err_and(|error| code(&error).is_none())
}
