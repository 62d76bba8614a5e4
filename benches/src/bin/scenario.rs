//! Measures shims as containerd uses them: `churn` is the time of a task's whole life, `idle` the
//! memory of containers that wait.
//!
//! The numbers are printed as JSON on standard output, and for people on standard error.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shimwright_testkit::{Bundle, Containerd, Error, Result, Shim};

const USAGE: &str = "\
usage: scenario churn --shim PATH --guest PATH [-n TASKS] [-c CLIENTS]
                      [--crun PATH --native PATH] [--other PATH [--other-arg WORD]...]
       scenario idle --shim PATH --guest PATH [-n CONTAINERS] [--shared]";

/// The pod of all containers that share a shim.
const POD: &str = "pod";

/// How long processes may take to come to rest before their memory is read.
const SETTLE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments));
    let written = outcome.and_then(|report| {
        writeln!(std::io::stdout(), "{report:#}")?;
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenario: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Default)]
struct Arguments {
    scenario: String,
    shim: PathBuf,
    guest: PathBuf,
    number: Option<usize>,
    clients: usize,
    crun: Option<PathBuf>,
    native: Option<PathBuf>,
    other: Option<PathBuf>,
    other_args: Vec<String>,
    shared: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        clients: 1,
        ..Arguments::default()
    };
    arguments.scenario = words.next().ok_or(USAGE)?;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--shim" => arguments.shim = value()?.into(),
            "--guest" => arguments.guest = value()?.into(),
            "-n" => arguments.number = Some(positive(&value()?)?),
            "-c" => arguments.clients = positive(&value()?)?,
            "--crun" => arguments.crun = Some(value()?.into()),
            "--native" => arguments.native = Some(value()?.into()),
            "--other" => arguments.other = Some(value()?.into()),
            "--other-arg" => arguments.other_args.push(value()?),
            "--shared" => arguments.shared = true,
            _ => return Err(USAGE.into()),
        }
    }
    let complete = arguments.shim != Path::new("") && arguments.guest != Path::new("");
    if !complete || arguments.crun.is_some() != arguments.native.is_some() {
        return Err(USAGE.into());
    }
    Ok(arguments)
}

fn positive(text: &str) -> Result<usize> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("not a positive number: {text}").into())
}

fn run(arguments: &Arguments) -> Result<Value> {
    let mut report = match arguments.scenario.as_str() {
        "churn" => churn(arguments)?,
        "idle" => idle(arguments)?,
        _ => return Err(USAGE.into()),
    };
    report["scenario"] = json!(arguments.scenario);
    report["kernel"] = json!(std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    report["cpu"] = json!(processor());
    report["cpus"] = json!(std::thread::available_parallelism().map_or(0, usize::from));
    Ok(report)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or_else(String::new, |(_, name)| name.into())
}

/// A bundle with a program, in the common pod.
fn bundle(containerd: &Containerd, id: &str, path: &str, program: &[u8]) -> Result<Bundle> {
    containerd
        .bundle(id)?
        .pod(POD)?
        .file(path, program, 0o755)?
        .args(&[path])
}

fn churn(arguments: &Arguments) -> Result<Value> {
    let containerd = Containerd::with_shim(&arguments.shim)?;
    let guest = std::fs::read(&arguments.guest)?;
    let first = bundle(&containerd, "first", "/guest.wasm", &guest)?;
    let shim = containerd.start(&first)?;
    // The first compiles, so it is not counted.
    task(&shim, &first)?;
    let native = arguments.native.as_ref().map(std::fs::read).transpose()?;
    let crun = arguments.crun.as_deref().zip(native.as_deref());

    let other = arguments.other.as_ref().map(std::fs::read).transpose()?;
    let other_bundle = |id: &str, wasm: &[u8]| -> Result<Bundle> {
        let words = arguments.other_args.iter().map(String::as_str);
        let args: Vec<_> = std::iter::once("/other.wasm").chain(words).collect();
        bundle(&containerd, id, "/other.wasm", wasm)?.args(&args)
    };
    if let Some(wasm) = &other {
        task(&shim, &other_bundle("first-other", wasm)?)?;
    }

    let number = arguments.number.unwrap_or(100);
    let client = |client: usize| -> Result<Measured> {
        let mut measured = Measured::default();
        // In turn, so that both see the same machine.
        for turn in (client..number).step_by(arguments.clients) {
            let bundle = bundle(&containerd, &format!("t{turn}"), "/guest.wasm", &guest)?;
            measured.ours.task(&shim, &bundle)?;
            if let Some((crun, native)) = crun {
                let bundle = self::bundle(&containerd, &format!("c{turn}"), "/app", native)?;
                let run = || crun_task(crun, &containerd, &bundle);
                measured.crun.push(timed(run)?);
            }
            if let Some(wasm) = &other {
                let bundle = other_bundle(&format!("o{turn}"), wasm)?;
                measured.other.task(&shim, &bundle)?;
                // It is large, and kept in memory.
                std::fs::remove_dir_all(bundle.image())?;
            }
        }
        Ok(measured)
    };
    let begin = Instant::now();
    let outcomes: Vec<Result<Measured>> = std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..arguments.clients)
            .map(|index| scope.spawn(move || client(index)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::from("a client panicked")))
        };
        clients.into_iter().map(join).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let mut all = Measured::default();
    for outcome in outcomes {
        let some = outcome?;
        all.ours.extend(some.ours);
        all.other.extend(some.other);
        all.crun.extend(some.crun);
    }
    shim.shutdown();

    let Measured {
        mut ours,
        mut other,
        mut crun,
    } = all;
    let mut report = json!({ "clients": arguments.clients, "shim": ours.summary("shim")? });
    if !other.whole.is_empty() {
        report["other"] = other.summary("the other guest")?;
        let difference = quantile(&other.whole, 0.5) - quantile(&ours.whole, 0.5);
        eprintln!("the other guest takes {difference:.2} ms longer");
        report["difference_of_medians_ms"] = json!(difference);
    }
    if !crun.is_empty() {
        report["crun"] = summary("crun", &mut crun)?;
        let ratio = quantile(&ours.whole, 0.5) / quantile(&crun, 0.5);
        eprintln!("the shim takes {ratio:.2} times as long as crun");
        report["ratio_of_medians"] = json!(ratio);
    } else if other.whole.is_empty() {
        let rate = ours.whole.len() as f64 / seconds;
        eprintln!("{rate:.1} tasks/s with {} clients", arguments.clients);
        report["tasks_per_second"] = json!(rate);
    }
    Ok(report)
}

/// The milliseconds of everything that `churn` has run.
#[derive(Default)]
struct Measured {
    ours: Tasks,
    other: Tasks,
    crun: Vec<f64>,
}

/// The milliseconds of tasks.
#[derive(Default)]
struct Tasks {
    whole: Vec<f64>,
    /// Of `create` alone.
    create: Vec<f64>,
}

impl Tasks {
    /// Runs one more.
    fn task(&mut self, shim: &Shim, bundle: &Bundle) -> Result<()> {
        let mut create = 0.0;
        self.whole.push(timed(|| {
            create = task(shim, bundle)?;
            Ok(())
        })?);
        self.create.push(create);
        Ok(())
    }

    fn extend(&mut self, others: Self) {
        self.whole.extend(others.whole);
        self.create.extend(others.create);
    }

    fn summary(&mut self, name: &str) -> Result<Value> {
        let mut report = summary(name, &mut self.whole)?;
        let create = summary(&format!("{name}, create alone"), &mut self.create)?;
        report["create_median_ms"] = create["median_ms"].clone();
        Ok(report)
    }
}

/// The milliseconds that something takes.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// A task's whole life. Returns the milliseconds of `create`.
fn task(shim: &Shim, bundle: &Bundle) -> Result<f64> {
    let create = timed(|| Ok(shim.create(bundle).map(drop)?))?;
    shim.start(bundle.id())?;
    let status = shim.wait(bundle.id())?.exit_status;
    shim.delete(bundle.id())?;
    if status != 0 {
        return Err(format!("the guest ended with {status}").into());
    }
    Ok(create)
}

/// The same of a native program, by a runtime that has no shim.
fn crun_task(crun: &Path, containerd: &Containerd, bundle: &Bundle) -> Result<()> {
    let status = Command::new(crun)
        .arg("--root")
        .arg(containerd.directory().join("crun"))
        .args(["run", "--bundle"])
        .arg(bundle.directory())
        .arg(bundle.id())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("crun ended with {status}").into());
    }
    Ok(())
}

fn summary(name: &str, times: &mut [f64]) -> Result<Value> {
    if times.is_empty() {
        return Err("nothing was measured".into());
    }
    times.sort_by(f64::total_cmp);
    let [median, p95, min] = [0.5, 0.95, 0.0].map(|part| quantile(times, part));
    let number = times.len();
    eprintln!("{name}: median {median:.2} ms, p95 {p95:.2} ms, min {min:.2} ms of {number} tasks");
    Ok(json!({ "tasks": number, "median_ms": median, "p95_ms": p95, "min_ms": min }))
}

/// The value below which this part of sorted values lies.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * part).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

fn idle(arguments: &Arguments) -> Result<Value> {
    let containerd = Containerd::with_shim(&arguments.shim)?;
    let guest = std::fs::read(&arguments.guest)?;
    let number = arguments.number.unwrap_or(20);
    let mut containers: Vec<(Shim, String)> = Vec::new();
    for index in 0..number {
        let id = format!("t{index}");
        let mut bundle = bundle(&containerd, &id, "/guest.wasm", &guest)?;
        if !arguments.shared {
            bundle = bundle.pod(&id)?;
        }
        let shim = containerd.start(&bundle)?;
        shim.create(&bundle)?;
        shim.start(&id)?;
        containers.push((shim, id));
    }
    // Nothing tells when the last of them waits.
    std::thread::sleep(SETTLE);
    let mut roles: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for process in containerd.snapshot().processes {
        let role = if process.contained { "runner" } else { "shim" };
        let sum = roles.entry(role).or_default();
        sum.0 += 1;
        sum.1 += pss(process.pid)?;
    }
    for (shim, id) in &containers {
        shim.kill(id, 9)?;
        shim.wait(id)?;
        shim.delete(id)?;
    }
    for (shim, _) in &containers {
        shim.shutdown();
    }

    let per_container = |kib: u64| kib as f64 / number as f64;
    let total: u64 = roles.values().map(|(_, kib)| kib).sum();
    let mut report = json!({
        "containers": number,
        "shared_shim": arguments.shared,
        "pss_kib_per_container": per_container(total),
    });
    for (role, (processes, kib)) in &roles {
        let kib = per_container(*kib);
        eprintln!("{role}: {kib:.0} KiB per container, {processes} processes");
        report[role] = json!({ "processes": processes, "pss_kib_per_container": kib });
    }
    eprintln!("together: {:.0} KiB per container", per_container(total));
    Ok(report)
}

/// A process's share of the memory, in KiB: what it shares with others is divided among them.
fn pss(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no Pss in smaps_rollup")?.parse()?)
}
