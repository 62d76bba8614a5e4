//! The cgroup of one compile, and its turn.
//!
//! At most so many compile at once on a node. Each holds a lock of the cache's, of which there are
//! as many, and so has a number that no other has. Its cgroup has that name, and a lock of its own,
//! since who compiles by another configuration has another group with the same number. A group that
//! nobody has locked was left by a launcher that was killed: whoever sees it removes it.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup::{Cgroups, Hierarchies, Version};
use crate::code::cache::Cache;
use crate::config::node::Compile;
use crate::error::{Context, Error};

/// The controllers that limit a compile.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// A period of the processor's time, in microseconds: the kernel's default.
const PERIOD: u32 = 100_000;
/// How many processes and threads one compile may have.
const TASKS: &str = "512";
/// How long to wait before looking again for a lock: the kernel tells when one lock is free, but
/// not when one of several is.
const LOOK: Duration = Duration::from_millis(10);
/// How long a killed compiler may take to end.
const BOUND: Duration = Duration::from_secs(4);

/// The right to compile, with the cgroup to do it in. Ends what is left in the group when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// Held as long as this is.
    _lock: File,
    config: &'a Compile,
    hierarchies: Hierarchies,
    cgroups: Cgroups,
    /// Whether the group's memory is limited by the kernel.
    pub(super) limits_memory: bool,
}

impl<'a> Turn<'a> {
    /// Waits for a turn, as long as one is `wanted`: that pipe is hung up when nobody waits for the
    /// outcome any more.
    ///
    /// # Errors
    ///
    /// That nobody waits, or that the deadline has passed.
    pub(crate) fn wait(
        cache: &Cache,
        config: &'a Compile,
        wanted: BorrowedFd<'_>,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + config.deadline();
        let (lock, number) = loop {
            let lock = cache.lock_file()?;
            let mut numbers = 0..config.at_once();
            let free = numbers.find_map(|number| match Cache::try_turn(&lock, number) {
                Ok(true) => Some(Ok(number)),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            });
            if let Some(number) = free {
                break (lock, number.context("lock the cache")?);
            }
            if Instant::now() >= deadline {
                return Err(Error::invalid(format!(
                    "{} other programs are being compiled, and did not end within \
                     compile.deadline = {} seconds",
                    config.at_once(),
                    config.deadline().as_secs()
                )));
            }
            pause(wanted)?;
        };
        let hierarchies = Hierarchies::discover().context("find the cgroup hierarchies")?;
        let path = config
            .cgroup()
            .child(&format!("{}{number}", prefix(cache)?));
        // Somebody may be removing what was left of it.
        while !Cache::try_group(&lock, path.as_path()).context("lock the cache")? {
            pause(wanted)?;
        }
        let cgroups = hierarchies.for_controllers(&path, &CONTROLLERS);
        let mut turn = Self {
            _lock: lock,
            config,
            hierarchies,
            cgroups,
            limits_memory: false,
        };
        turn.make();
        Ok(turn)
    }

    /// Makes the cgroup. A node without one for memory still has the limits of the process.
    fn make(&mut self) {
        // A launcher that was killed may have left it.
        let _ = self.cgroups.kill_all(BOUND);
        let _ = self.cgroups.remove(BOUND);
        let make = || {
            // Whoever compiled last may be removing the group above at this moment.
            let mut made = self.hierarchies.make(&self.cgroups);
            for _ in 0..3 {
                if made.is_ok() {
                    break;
                }
                made = self.hierarchies.make(&self.cgroups);
            }
            made?;
            if let (Version::V2(group), Some(unified)) =
                (self.cgroups.version(), self.hierarchies.unified())
            {
                unified.hand_on(group, &CONTROLLERS);
            }
            self.limit()
        };
        match make() {
            Ok(()) => self.limits_memory = true,
            Err(error) => tracing::warn!(
                %error,
                "a compile has no cgroup that limits its memory, only the limits of a process"
            ),
        }
    }

    fn limit(&self) -> std::io::Result<()> {
        let group = &self.cgroups;
        let memory = self.config.memory.to_string();
        let quota = self.config.cpu_quota(PERIOD);
        // Not on every kernel: swap, and the controllers of pids and of the processor.
        let _ = group.set("pids", "pids.max", "pids.max", TASKS);
        let period = PERIOD.to_string();
        let _ = group.set("cpu", "cpu.cfs_period_us", "cpu.max", &period);
        let processor = group.set(
            "cpu",
            "cpu.cfs_quota_us",
            "cpu.max",
            &match group.version() {
                Version::V2(_) => format!("{quota} {PERIOD}"),
                Version::V1(_) => quota.to_string(),
            },
        );
        if let Err(error) = processor {
            tracing::warn!(%error, "the processor time of a compile cannot be limited");
        }
        group.set("memory", "memory.limit_in_bytes", "memory.max", &memory)?;
        let swap = match group.version() {
            Version::V2(_) => "0",
            Version::V1(_) => &memory,
        };
        let _ = group.set(
            "memory",
            "memory.memsw.limit_in_bytes",
            "memory.swap.max",
            swap,
        );
        let _ = group.set("memory", "memory.swappiness", "memory.oom.group", "1");
        Ok(())
    }

    /// The groups that the compiler is to join; those that could not be made are left out.
    pub(crate) fn cgroups(&self) -> Cgroups {
        self.cgroups.that_exist()
    }

    /// Whether the kernel has killed for lack of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.cgroups.killed_for_memory() > 0
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let removed = self
            .cgroups
            .kill_all(BOUND)
            .and_then(|()| self.cgroups.remove(BOUND));
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove the cgroup of a compile");
        }
        let above = self
            .hierarchies
            .for_controllers(self.config.cgroup(), &CONTROLLERS);
        above.remove_empty();
    }
}

/// Removes the cgroups of compiles whose launchers were killed, and waits as long as `bound` for the
/// end of what is in one of them.
///
/// # Errors
///
/// That the cache cannot be locked.
pub(crate) fn sweep(config: &Compile, bound: Duration) -> Result<(), Error> {
    let hierarchies = Hierarchies::discover().context("find the cgroup hierarchies")?;
    let above = hierarchies.for_controllers(config.cgroup(), &CONTROLLERS);
    if !above.exist() {
        return Ok(());
    }
    let cache = Cache::open()?;
    for name in above.below(&prefix(&cache)?) {
        let path = config.cgroup().child(&name);
        let lock = cache.lock_file()?;
        if Cache::try_group(&lock, path.as_path()).context("lock the cache")? {
            let group = hierarchies.for_controllers(&path, &CONTROLLERS);
            let removed = group.kill_all(bound).and_then(|()| group.remove(bound));
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot remove the cgroup of a compile");
            }
        }
    }
    above.remove_empty();
    Ok(())
}

/// What the names of the groups of a cache begin with: shims with another one have other locks.
fn prefix(cache: &Cache) -> Result<String, Error> {
    Ok(format!("{}-", cache.identity()?))
}

/// Waits a moment, and tells if nobody waits for the outcome any more.
///
/// # Errors
///
/// `Invalid`, saying so.
pub(crate) fn pause(wanted: BorrowedFd<'_>) -> Result<(), Error> {
    let look = Timespec::try_from(LOOK).unwrap_or_default();
    let mut pipe = [PollFd::from_borrowed_fd(wanted, PollFlags::empty())];
    match poll(&mut pipe, Some(&look)) {
        Err(error) if error != rustix::io::Errno::INTR => Err(error).context("wait for a turn"),
        _ if pipe[0].revents().contains(PollFlags::HUP) => {
            Err(Error::invalid("nobody waits for the program any more"))
        }
        _ => Ok(()),
    }
}
