//! Faults that set the clock of the whole machine, and how it is put back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};
use serde_json::json;
use shimwright_guests::{IDLE, SPIN};
use shimwright_testkit::events::Content;
use shimwright_testkit::protos::api::WaitResponse;
use shimwright_testkit::protos::protobuf::MessageField;
use shimwright_testkit::protos::protobuf::well_known_types::timestamp::Timestamp;
use shimwright_testkit::{Result, Shim};

use crate::round::{CALL, CLEAN_UP, ID, Round, timed};

/// How many seconds the clock is wrong by: not at all, an hour ahead, a day behind.
const WRONG: [i64; 3] = [0, 3600, -86400];

/// By how many seconds a time may differ from one of those that the clock has shown.
const TOLERANCE: u64 = 60;

/// The moment of a jump is any within this time.
const STEP: Duration = Duration::from_millis(50);

/// What a process of a guest is added with.
const EXEC: &str = "e";

/// The clock, which is right again when this is dropped. The monotonic one knows what is right.
struct Clock<'a> {
    round: &'a Round,
    begin: (Duration, Instant),
}

impl<'a> Clock<'a> {
    fn new(round: &'a Round) -> Result<Self> {
        let begin = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let clock = Self {
            round,
            begin: (begin, Instant::now()),
        };
        clock.set(0)?;
        Ok(clock)
    }

    fn right(&self) -> Duration {
        self.begin.0 + self.begin.1.elapsed()
    }

    /// Sets it so that it is wrong by so many seconds.
    fn set(&self, wrong: i64) -> Result<()> {
        let right = self.right();
        let time = Timespec {
            tv_sec: i64::try_from(right.as_secs())? + wrong,
            tv_nsec: right.subsec_nanos().into(),
        };
        let set = clock_settime(ClockId::Realtime, time);
        set.map_err(|error| format!("cannot set the clock: {error}").into())
    }

    /// Makes a call during which the clock may jump.
    fn jumping<T: Send>(&self, call: impl FnOnce() -> T + Send) -> Result<T> {
        if self.round.below(3) == 0 {
            return timed("a call", CALL, call);
        }
        let wrong = self.round.one_of(&WRONG);
        let mut set = Ok(());
        let answer = self.round.during(STEP, || set = self.set(wrong), call)?;
        set?;
        Ok(answer)
    }

    /// A time must be one that the clock has shown.
    fn check(&self, what: &str, at: &MessageField<Timestamp>) -> Result<()> {
        let at = at.as_ref().ok_or_else(|| format!("{what} has no time"))?;
        let right = i64::try_from(self.right().as_secs())?;
        let shown = |wrong: &i64| at.seconds.abs_diff(right + wrong) <= TOLERANCE;
        if WRONG.iter().any(shown) && (0..1_000_000_000).contains(&at.nanos) {
            return Ok(());
        }
        Err(format!("{what} is at {at:?}, when it is {right}").into())
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}

/// In the whole life of a container, that of one of its processes, and its pause.
pub(crate) fn jumps_in_a_life(round: &Round) -> Result<()> {
    let clock = Clock::new(round)?;
    let mut bundle = round.bundle(IDLE)?.overlay()?;
    let stdout = bundle.stdout()?;
    let shim = clock.jumping(|| round.containerd.start(&bundle))??;
    clock.jumping(|| shim.create(&bundle))??;
    clock.jumping(|| shim.start(ID))??;
    stdout.wait_for("ready")?;
    clock.jumping(|| shim.pause(ID))??;
    clock.jumping(|| shim.resume(ID))??;
    run_process(&clock, &shim)?;
    clock.jumping(|| shim.kill(ID, 9))??;
    let waited = clock.jumping(|| shim.wait(ID))??;
    let deleted = clock.jumping(|| shim.delete(ID))??;
    let statuses = [waited.exit_status, deleted.exit_status];
    if statuses != [137; 2] || waited.exited_at != deleted.exited_at {
        return Err(format!("Wait says {waited:?}, Delete {deleted:?}").into());
    }
    clock.check("the end", &waited.exited_at)?;
    check_events(round, &waited)?;
    clock.jumping(|| shim.shutdown_after(ID))?;
    round.lost(&shim)
}

/// What containerd has heard is in order, and agrees with the answers.
fn check_events(round: &Round, waited: &WaitResponse) -> Result<()> {
    let events = round.containerd.events();
    events.wait_for_topic(ID, "delete")?;
    let topics = events.topics(ID);
    let expected = [
        "create",
        "start",
        "paused",
        "resumed",
        "exec-added",
        "exec-started",
        "exit",
        "exit",
        "delete",
    ];
    if topics != expected {
        return Err(format!("containerd has heard of {topics:?}").into());
    }
    let exit = events
        .of(ID)
        .into_iter()
        .find_map(|event| match event.content {
            Content::Exit(exit) if exit.id == ID => Some((exit.exit_status, exit.exited_at)),
            _ => None,
        });
    if exit != Some((waited.exit_status, waited.exited_at.clone())) {
        return Err(format!("Wait says {waited:?}, the event {exit:?}").into());
    }
    Ok(())
}

/// A further process of the container, from its start to its end.
fn run_process(clock: &Clock<'_>, shim: &Shim) -> Result<()> {
    let process = json!({
        "args": ["/guest.wasm"], "cwd": "/", "user": {"uid": 0, "gid": 0},
    });
    let exec = clock.jumping(|| shim.add_exec(ID, EXEC, &process, Default::default()))??;
    clock.jumping(|| exec.start())??;
    clock.jumping(|| exec.kill(9))??;
    let waited = clock.jumping(|| exec.wait())??;
    if waited.exit_status != 137 {
        return Err(format!("the process ended with {}", waited.exit_status).into());
    }
    clock.check("the end of the process", &waited.exited_at)?;
    clock.jumping(|| exec.delete())??;
    Ok(())
}

/// While a guest has a time limit, which is not one of the clock.
pub(crate) fn jumps_within_a_time_limit(round: &Round) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(1);
    let clock = Clock::new(round)?;
    let guest = round.one_of(&[IDLE, SPIN]);
    let bundle = round.bundle(guest)?;
    let bundle = bundle.annotation("dev.shimwright.time_limit", "1")?;
    let setting = round.created(bundle)?;
    let begin = Instant::now();
    clock.jumping(|| setting.shim.start(ID))??;
    let waited = clock.jumping(|| setting.shim.wait(ID))??;
    let took = begin.elapsed();
    if waited.exit_status != 124 || took < LIMIT {
        return Err(format!("{} after {took:?}", waited.exit_status).into());
    }
    clock.check("the end", &waited.exited_at)?;
    round.recover(&setting.bundle, &setting.shim)
}

/// While the shim is gone, and a cleaner answers for it.
pub(crate) fn jumps_after_a_crash(round: &Round) -> Result<()> {
    let clock = Clock::new(round)?;
    let setting = round.idle()?;
    clock.jumping(|| round.kill_shim(&setting))??;
    let (directory, id) = (setting.bundle.directory(), setting.bundle.id());
    let delete = || {
        timed("the delete command", CLEAN_UP, || {
            round.containerd.delete(directory, id)
        })
    };
    let answer = clock.jumping(delete)???;
    if answer.exit_status != 137 {
        return Err(format!("delete says status {}", answer.exit_status).into());
    }
    clock.check("the end", &answer.exited_at)
}
