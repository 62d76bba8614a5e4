//! Every fault there is.

mod files;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::json;
use shimwright_guests::{CAT, HELLO, IDLE, STREAMS};
use shimwright_testkit::protos::ttrpc::{self, Code};
use shimwright_testkit::{Result, Shim, stdio};

use files::{
    full_disk, no_cgroup, no_config, no_config_after_crash, read_only_after_crash,
    read_only_bundle, short_config, wrong_config,
};

use crate::clock::{jumps_after_a_crash, jumps_in_a_life, jumps_within_a_time_limit};
use crate::round::{CALL, CLEAN_UP, ID, Round, code, is_code, signal, timed};

/// One kind of fault.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Round) -> Result<()>,
    /// Whether it sets the clock of the whole machine.
    pub(crate) sets_clock: bool,
}

const fn fault(name: &'static str, run: fn(&Round) -> Result<()>) -> Fault {
    Fault {
        name,
        run,
        sets_clock: false,
    }
}

const fn clock_fault(name: &'static str, run: fn(&Round) -> Result<()>) -> Fault {
    Fault {
        name,
        run,
        sets_clock: true,
    }
}

/// In the order they are tried.
pub(crate) const FAULTS: &[Fault] = &[
    fault(
        "a process is killed during start of the shim",
        kill_in_shim_start,
    ),
    fault("a process is killed during Create", kill_in_create),
    fault("a process is killed during Start", kill_in_start),
    fault("a process is killed during Exec", kill_in_exec),
    fault("a process is killed while the guest runs", kill_in_run),
    fault("a process is killed during Kill", kill_in_kill),
    fault("a process is killed during Delete", kill_in_delete),
    fault("a process is killed during Shutdown", kill_in_shutdown),
    fault("the shim is killed while the guest is paused", kill_paused),
    fault(
        "the shim is killed, and several clean up",
        concurrent_cleaners,
    ),
    fault("containerd is gone for a while", no_containerd),
    fault("the shim is stopped for a while", stopped_shim),
    fault("the guest's process is stopped", stopped_guest),
    fault("the disk is full", full_disk),
    fault("the bundle cannot be written", read_only_bundle),
    fault(
        "the bundle cannot be written when the shim is killed",
        read_only_after_crash,
    ),
    fault("config.json is missing", no_config),
    fault("config.json is cut off", short_config),
    fault("config.json has a wrong byte", wrong_config),
    fault(
        "config.json is lost when the shim is killed",
        no_config_after_crash,
    ),
    fault("the control group cannot be made", no_cgroup),
    fault("nobody opens the output", unopened_output),
    fault("nobody reads the output", unread_output),
    fault("nobody reads the log", unread_log),
    fault("each request is made eight times at once", duplicates),
    fault("64 clients at once", many_clients),
    fault("requests that make no sense", nonsense),
    clock_fault("the clock jumps during a life", jumps_in_a_life),
    clock_fault(
        "the clock jumps within a time limit",
        jumps_within_a_time_limit,
    ),
    clock_fault(
        "the clock jumps when the shim is killed",
        jumps_after_a_crash,
    ),
];

/// How long the steps take on a quiet machine, and a little more.
const STEP: Duration = Duration::from_millis(25);

fn kill_in_shim_start(round: &Round) -> Result<()> {
    let bundle = round.any_bundle()?;
    let start = || round.containerd.run_start(&bundle, &[]);
    let ran = round.during(STEP, round.kill_any(), start)??;
    let shim = ran.text().and_then(|address| Shim::connect(address.trim()));
    match shim {
        // The kill may have come after the answer.
        Ok(shim) => round.recover(&bundle, &shim),
        Err(_) => round.clean_after(&bundle),
    }
}

fn kill_in_create(round: &Round) -> Result<()> {
    let setting = round.started(round.any_bundle()?)?;
    let create = || setting.shim.create(&setting.bundle);
    let _ = round.during(STEP, round.kill_any(), create)?;
    round.recover(&setting.bundle, &setting.shim)
}

fn kill_in_start(round: &Round) -> Result<()> {
    let setting = round.created(round.any_bundle()?)?;
    let _ = round.during(STEP / 5, round.kill_any(), || setting.shim.start(ID))?;
    round.recover(&setting.bundle, &setting.shim)
}

fn kill_in_exec(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    let process = json!({
        "args": ["/guest.wasm"], "cwd": "/", "user": {"uid": 0, "gid": 0},
    });
    let none = || <[String; 3]>::default();
    let exec = setting.shim.add_exec(ID, "e", &process, none())?;
    let _ = round.during(STEP, round.kill_any(), || exec.start())?;
    round.recover(&setting.bundle, &setting.shim)
}

fn kill_in_run(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    round.during(STEP, round.kill_any(), || ())?;
    round.recover(&setting.bundle, &setting.shim)
}

fn kill_in_kill(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    let _ = round.during(STEP / 5, round.kill_any(), || setting.shim.kill(ID, 9))?;
    round.recover(&setting.bundle, &setting.shim)
}

fn kill_in_delete(round: &Round) -> Result<()> {
    let setting = round.created(round.bundle(HELLO)?.overlay()?)?;
    setting.shim.start(ID)?;
    setting.shim.wait(ID)?;
    let _ = round.during(STEP / 2, round.kill_any(), || setting.shim.delete(ID))?;
    round.recover(&setting.bundle, &setting.shim)
}

fn kill_in_shutdown(round: &Round) -> Result<()> {
    let setting = round.started(round.any_bundle()?)?;
    round.during(STEP / 5, round.kill_any(), || {
        setting.shim.shutdown_after(ID)
    })?;
    round.lost(&setting.shim)?;
    round.clean_after(&setting.bundle)
}

fn kill_paused(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    setting.shim.pause(ID)?;
    round.kill_shim(&setting)?;
    round.clean_after(&setting.bundle)
}

fn concurrent_cleaners(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    round.kill_shim(&setting)?;
    let answers = round.at_once(4, |_| round.clean_after(&setting.bundle))?;
    answers.into_iter().collect()
}

fn no_containerd(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(HELLO)?)?;
    let steps = round.below(4);
    let gone_at = |step: u64| {
        if step == steps {
            round.fault();
            round.containerd.events().stop();
        }
    };
    gone_at(0);
    setting.shim.create(&setting.bundle)?;
    gone_at(1);
    setting.shim.start(ID)?;
    gone_at(2);
    let status = setting.shim.wait(ID)?.exit_status;
    gone_at(3);
    if status != 0 {
        return Err(format!("the guest ended with {status}").into());
    }
    round.containerd.events().restart()?;
    setting.shim.delete(ID)?;
    // Whatever containerd has missed, it is told.
    round.containerd.events().wait_for_topic(ID, "delete")?;
    let mut topics = round.containerd.events().topics(ID);
    // One may come twice when its answer was lost.
    topics.dedup();
    if topics != ["create", "start", "exit", "delete"] {
        return Err(format!("containerd has heard of {topics:?}").into());
    }
    setting.shim.shutdown_after(ID);
    Ok(())
}

fn stopped_shim(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(HELLO)?)?;
    let pid = round
        .containerd
        .snapshot()
        .shims()
        .first()
        .copied()
        .and_then(|pid| u32::try_from(pid).ok())
        .ok_or("there is no shim process")?;
    let (before, stopped) = (round.time(STEP), round.time(STEP * 4));
    round.fault();
    let status = thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(before);
            signal(pid, Signal::STOP);
            thread::sleep(stopped);
            signal(pid, Signal::CONT);
        });
        setting.shim.create(&setting.bundle)?;
        setting.shim.start(ID)?;
        setting.shim.wait(ID)
    })?;
    if status.exit_status != 0 {
        return Err(format!("the guest ended with {}", status.exit_status).into());
    }
    setting.shim.delete(ID)?;
    setting.shim.shutdown_after(ID);
    Ok(())
}

fn stopped_guest(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    round.fault();
    signal(setting.shim.connect_task(ID)?.task_pid, Signal::STOP);
    setting.shim.kill(ID, 9)?;
    let status = timed("Wait", CLEAN_UP, || setting.shim.wait(ID))??;
    if status.exit_status != 137 {
        return Err(format!("the guest ended with {}", status.exit_status).into());
    }
    round.recover(&setting.bundle, &setting.shim)
}

fn unopened_output(round: &Round) -> Result<()> {
    let mut bundle = round.bundle(IDLE)?;
    bundle.unread_stdout()?;
    let shim = round.containerd.start(&bundle)?;
    round.fault();
    timed("Create", CALL, || shim.create(&bundle))??;
    timed("Start", CALL, || shim.start(ID))??;
    round.recover(&bundle, &shim)
}

fn unread_output(round: &Round) -> Result<()> {
    let mut bundle = round.bundle(CAT)?;
    let path = bundle.unread_stdout()?;
    let mut stdin = bundle.stdin()?;
    let held = OpenOptions::new().read(true).write(true).open(path)?;
    let shim = round.containerd.start(&bundle)?;
    round.fault();
    shim.create(&bundle)?;
    shim.start(ID)?;
    // More than the FIFO of the output holds.
    stdin.write(&vec![b'x'; 65 << 10])?;
    let outcome = round.recover(&bundle, &shim);
    drop(held);
    outcome
}

/// containerd reads what shims log from a FIFO in the bundle, unless it hangs.
fn unread_log(round: &Round) -> Result<()> {
    let bundle = round.bundle(STREAMS)?;
    let log = bundle.directory().join("log");
    stdio::fifo(&log)?;
    let mut full = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&log)?;
    round.fault();
    while full.write(&[b'x'; 4096]).is_ok() {}
    let setting = round.started(bundle)?;
    timed("Create", CALL, || setting.shim.create(&setting.bundle))??;
    // It is worth a line that there is no such exec.
    let _ = setting.shim.exec_of(ID, "none").start();
    timed("Start", CALL, || setting.shim.start(ID))??;
    setting.shim.wait(ID)?;
    round.recover(&setting.bundle, &setting.shim)?;
    fs::remove_file(log)?;
    Ok(())
}

/// Makes a request eight times at once, and returns how often each code was the answer.
fn eight_times<T>(
    round: &Round,
    request: impl Fn() -> ttrpc::Result<T> + Sync,
) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    let outcomes = round.at_once(8, |_| request().map(drop))?;
    for outcome in outcomes {
        let answer = match &outcome {
            Ok(()) => "OK".to_owned(),
            Err(error) => format!("{:?}", code(error).ok_or_else(|| error.to_string())?),
        };
        *answers.entry(answer).or_default() += 1;
    }
    Ok(answers)
}

/// Exactly one of eight may succeed, and the others have one of these codes.
fn check_one(what: &str, answers: &BTreeMap<String, usize>, others: &[&str]) -> Result<()> {
    let known = |code: &String| code == "OK" || others.contains(&code.as_str());
    if answers.get("OK") == Some(&1)
        && answers.values().sum::<usize>() == 8
        && answers.keys().all(known)
    {
        return Ok(());
    }
    Err(format!("{what}, eight times at once, was answered {answers:?}").into())
}

fn duplicates(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(IDLE)?.overlay()?)?;
    let (shim, bundle) = (&setting.shim, &setting.bundle);
    let answers = eight_times(round, || shim.create(bundle))?;
    check_one("Create", &answers, &["ALREADY_EXISTS"])?;
    let answers = eight_times(round, || shim.start(ID))?;
    check_one("Start", &answers, &["FAILED_PRECONDITION"])?;
    for answers in [
        eight_times(round, || shim.state(ID))?,
        eight_times(round, || shim.stats(ID))?,
        eight_times(round, || shim.pids(ID))?,
    ] {
        if answers.get("OK") != Some(&8) {
            return Err(format!("a question was answered {answers:?}").into());
        }
    }
    eight_times(round, || shim.kill(ID, 9))?;
    let answers = eight_times(round, || shim.wait(ID))?;
    if answers.get("OK") != Some(&8) {
        return Err(format!("Wait was answered {answers:?}").into());
    }
    let answers = eight_times(round, || shim.delete(ID))?;
    check_one("Delete", &answers, &["NOT_FOUND"])?;
    shim.shutdown_after(ID);
    Ok(())
}

fn many_clients(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(IDLE)?)?;
    let outcomes = round.at_once(64, |number| {
        let shim = Shim::connect(setting.shim.address())?;
        let id = format!("c{number}");
        let bundle = round.containerd.bundle(&id)?.guest(HELLO)?;
        shim.create(&bundle)?;
        shim.start(&id)?;
        let status = shim.wait(&id)?.exit_status;
        let deleted = shim.delete(&id)?.exit_status;
        match (status, deleted) {
            (0, 0) => Ok(()),
            other => Err(format!("{id} ended with {other:?}").into()),
        }
    })?;
    outcomes.into_iter().collect::<Result<()>>()?;
    setting.shim.shutdown_after(ID);
    Ok(())
}

/// Requests out of order and about nothing are refused, and change nothing.
fn nonsense(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    let shim = &setting.shim;
    for _ in 0..16 {
        round.fault();
        let id = round.one_of(&["", "b", "../a", "a/b", "a"]);
        let exec = round.one_of(&["x", "..", "a b"]);
        let outcome: ttrpc::Result<()> = match round.below(8) {
            0 => shim.start(id).map(drop),
            1 => shim.delete(id).map(drop),
            2 => shim.exec_of(id, exec).start().map(drop),
            3 => shim.exec_of(id, exec).kill(9),
            4 => shim.exec_of(id, exec).delete().map(drop),
            5 => shim.resume(id).map(drop),
            6 => shim
                .add_exec(id, exec, &json!({"args": []}), Default::default())
                .map(drop),
            _ => shim.create(&setting.bundle).map(drop),
        };
        match outcome {
            Ok(()) => return Err(format!("a request about {id:?} and {exec:?} succeeded").into()),
            Err(error) if code(&error).is_none() || is_code(&error, Code::UNKNOWN) => {
                return Err(format!("a request about {id:?} and {exec:?}: {error}").into());
            }
            Err(_) => {}
        }
    }
    let state = shim.state(ID)?;
    if state.exit_status != 0 || state.pid != shim.connect_task(ID)?.task_pid {
        return Err(format!("the container has changed: {state:?}").into());
    }
    round.recover(&setting.bundle, &setting.shim)
}
