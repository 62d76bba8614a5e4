//! Changing the limits of a container that exists: `LinuxResources` as writes to files of its
//! control groups, all of them or none.
//!
//! What the files mean is in `cgroup-v1/` and `cgroup-v2.rst` of the kernel's documents, what the
//! fields mean in the OCI runtime spec, "Control groups". As with runc, a number that is 0 and a
//! list that is empty leave a limit as it is, and -1 takes it away.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use super::{Cgroups, write};
use crate::error::Error;

/// The processor shares that a version 1 kernel takes without changing them.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Applies limits to a container's groups.
///
/// Launcher process: a lower limit of memory waits until the kernel has taken back what is above.
///
/// # Errors
///
/// `Invalid` with the name of the file, the value and the kernel's reason. The limits are then as
/// they were; if one could not be restored, the error says so.
pub(crate) fn update(cgroups: &Cgroups, resources: &LinuxResources) -> Result<Applied, Error> {
    if resources.block_io().is_some() || resources.network().is_some() || resources.rdma().is_some()
    {
        tracing::debug!("an update leaves limits of block devices, network and RDMA as they are");
    }
    let plan = match cgroups.unified() {
        Some(directory) => unified(directory, resources)?,
        None => legacy(cgroups, resources)?,
    };
    apply(&plan)
}

/// Limits that were changed, with what they were before.
#[derive(Debug)]
#[must_use]
pub(crate) struct Applied(Vec<Write>);

impl Applied {
    /// Takes them back, and adds to what went wrong meanwhile which of them cannot be.
    pub(crate) fn take_back(self, error: Error) -> Error {
        let changed = kept(&restore(self.0));
        match error {
            Error::Invalid { what } => Error::invalid(what + &changed),
            Error::Failed { action, source } => Error::Failed {
                action: action + &changed,
                source,
            },
            other => other,
        }
    }
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    file: PathBuf,
    value: String,
}

impl Write {
    fn new(directory: &Path, file: &str, value: impl ToString) -> Self {
        Self {
            file: directory.join(file),
            value: value.to_string(),
        }
    }

    fn name(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

fn apply(plan: &[Write]) -> Result<Applied, Error> {
    let mut before = Vec::new();
    for step in plan {
        let old = std::fs::read_to_string(&step.file);
        let done = old.and_then(|old| {
            write(&step.file, &step.value)?;
            Ok(Write {
                file: step.file.clone(),
                value: old.trim_end().to_owned(),
            })
        });
        match done {
            Ok(old) => before.push(old),
            Err(error) => return Err(refusal(step, error, &restore(before))),
        }
    }
    Ok(Applied(before))
}

/// Takes changes back, the last one first. Returns the names of the files that stay changed.
fn restore(before: Vec<Write>) -> Vec<String> {
    let changed = before.into_iter().rev().filter(|old| {
        // Of a file of several lines, such as `io.max`, one line is written at a time.
        old.value.contains('\n') || write(&old.file, &old.value).is_err()
    });
    changed.map(|old| old.name()).collect()
}

/// Says which files stay changed.
fn kept(changed: &[String]) -> String {
    if changed.is_empty() {
        String::new()
    } else {
        format!(" (and these stay changed: {})", changed.join(", "))
    }
}

fn refusal(step: &Write, error: io::Error, changed: &[String]) -> Error {
    let (name, value) = (step.name(), &step.value);
    let kept = kept(changed);
    // What a value can be blamed for; `cpuset` alone has four reasons.
    let is_values_fault = matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL
                | libc::ERANGE
                | libc::EBUSY
                | libc::EACCES
                | libc::EPERM
                | libc::ENOSPC
                | libc::ENODEV
                | libc::EOPNOTSUPP
        )
    );
    if error.kind() == io::ErrorKind::NotFound {
        return Error::invalid(format!("{name}: the container has no such limit{kept}"));
    }
    if is_values_fault {
        return Error::invalid(format!("{name}: {value:?}: {error}{kept}"));
    }
    Error::Failed {
        action: format!("set {name} to {value:?}{kept}"),
        source: error.into(),
    }
}

fn legacy(cgroups: &Cgroups, resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(Error::invalid(
            "unified: this machine controls resources with version 1 groups",
        ));
    }
    let group = |name: &str| {
        let missing = || Error::invalid(format!("{name}: this machine has no such controller"));
        cgroups.controller(name).ok_or_else(missing)
    };
    let mut plan = Vec::new();
    if let Some(pids) = resources.pids()
        && let Some(limit) = tasks(pids)
    {
        plan.push(Write::new(group("pids")?, "pids.max", limit));
    }
    if let Some(cpu) = resources.cpu() {
        let sets = [
            ("cpuset.cpus", cpu.cpus().as_deref()),
            ("cpuset.mems", cpu.mems().as_deref()),
        ];
        for (file, list) in sets {
            if let Some(list) = list.filter(|list| !list.is_empty()) {
                plan.push(Write::new(group("cpuset")?, file, list));
            }
        }
        let writes = legacy_cpu(cgroups.controller("cpu").unwrap_or(Path::new("")), cpu)?;
        if !writes.is_empty() {
            group("cpu")?;
        }
        plan.extend(writes);
    }
    if let Some(limits) = resources.hugepage_limits() {
        for limit in limits {
            let directory = group("hugetlb")?;
            plan.extend(huge_pages(directory, limit, "limit_in_bytes")?);
        }
    }
    if let Some(memory) = resources.memory() {
        plan.extend(legacy_memory(group("memory")?, memory)?);
    }
    Ok(plan)
}

fn legacy_cpu(directory: &Path, cpu: &LinuxCpu) -> Result<Vec<Write>, Error> {
    let mut plan = Vec::new();
    if let Some(shares) = shares(cpu)? {
        plan.push(Write::new(directory, "cpu.shares", shares));
    }
    let times = [
        (
            ("cpu.rt_period_us", cpu.realtime_period()),
            ("cpu.rt_runtime_us", cpu.realtime_runtime()),
        ),
        (
            ("cpu.cfs_period_us", cpu.period()),
            ("cpu.cfs_quota_us", cpu.quota()),
        ),
    ];
    for ((period_file, period), (time_file, time)) in times {
        let period = period.filter(|&period| period != 0);
        let time = time.filter(|&time| time != 0);
        let mut writes = Vec::new();
        if let Some(period) = period {
            writes.push(Write::new(directory, period_file, period));
        }
        if let Some(time) = time {
            writes.push(Write::new(directory, time_file, time));
        }
        // A group may never have a larger part of the time than its parent, not even for the
        // moment between two writes.
        if period.is_some_and(|period| period < current(directory, period_file)) {
            writes.reverse();
        }
        plan.extend(writes);
    }
    if let Some(burst) = cpu.burst() {
        let file = "cpu.cfs_burst_us";
        let at = if burst < current(directory, file) {
            0
        } else {
            plan.len()
        };
        // It may never exceed the quota.
        plan.insert(at, Write::new(directory, file, burst));
    }
    if let Some(idle) = cpu.idle() {
        plan.push(Write::new(directory, "cpu.idle", idle));
    }
    Ok(plan)
}

fn legacy_memory(directory: &Path, memory: &LinuxMemory) -> Result<Vec<Write>, Error> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    check_usage(directory, "memory.usage_in_bytes", LIMIT, memory)?;
    let limit = set(memory.limit());
    let mut swap = set(memory.swap());
    // Memory without a limit needs a sum with swap that has none either.
    if limit == Some(-1) && swap.is_none() && directory.join(SWAP).exists() {
        swap = Some(-1);
    }
    let mut plan = Vec::new();
    if let Some(limit) = limit {
        plan.push(Write::new(directory, LIMIT, limit));
    }
    if let Some(swap) = swap {
        // The sum must at no time be below the limit of memory alone.
        let raised = u64::try_from(swap).map_or(true, |swap| swap >= current(directory, SWAP));
        let at = if raised { 0 } else { plan.len() };
        plan.insert(at, Write::new(directory, SWAP, swap));
    }
    if let Some(reservation) = set(memory.reservation()) {
        let file = "memory.soft_limit_in_bytes";
        plan.push(Write::new(directory, file, reservation));
    }
    if let Some(limit) = set(memory.kernel_tcp()) {
        let file = "memory.kmem.tcp.limit_in_bytes";
        plan.push(Write::new(directory, file, limit));
    }
    if let Some(swappiness) = memory.swappiness() {
        plan.push(Write::new(directory, "memory.swappiness", swappiness));
    }
    Ok(plan)
}

fn unified(directory: &Path, resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    let mut plan = Vec::new();
    if let Some(pids) = resources.pids()
        && let Some(limit) = tasks(pids)
    {
        plan.push(Write::new(directory, "pids.max", limit));
    }
    if let Some(cpu) = resources.cpu() {
        plan.extend(unified_cpu(directory, cpu)?);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        plan.extend(huge_pages(directory, limit, "max")?);
    }
    if let Some(memory) = resources.memory() {
        plan.extend(unified_memory(directory, memory)?);
    }
    let mut others: Vec<_> = resources.unified().iter().flatten().collect();
    others.sort();
    for (file, value) in others {
        if !is_unified(file) {
            return Err(Error::invalid(format!("unified: {file:?} is not a limit")));
        }
        plan.push(Write::new(directory, file, value));
    }
    Ok(plan)
}

/// Whether a name of `unified` is that of a limit: a file of the container's own group that does not
/// change the group itself.
pub(crate) fn is_unified(file: &str) -> bool {
    let is_limit = file.split_once('.').is_some_and(|(controller, limit)| {
        !controller.is_empty() && controller != "cgroup" && !limit.is_empty()
    });
    is_limit && !file.contains('/')
}

fn unified_cpu(directory: &Path, cpu: &LinuxCpu) -> Result<Vec<Write>, Error> {
    let is_realtime = cpu.realtime_period().unwrap_or_default() != 0
        || cpu.realtime_runtime().unwrap_or_default() != 0;
    if is_realtime {
        return Err(Error::invalid(
            "realtimePeriod, realtimeRuntime: version 2 groups have no such limits",
        ));
    }
    let mut plan = Vec::new();
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            plan.push(Write::new(directory, file, list));
        }
    }
    if let Some(shares) = shares(cpu)? {
        plan.push(Write::new(directory, "cpu.weight", weight(shares)));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0).map(or_max);
    let period = cpu.period().filter(|&period| period != 0);
    let max = match (quota, period) {
        (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
        (Some(quota), None) => Some(quota),
        (None, Some(period)) => {
            let file = directory.join("cpu.max");
            let now = std::fs::read_to_string(file).unwrap_or_default();
            let quota = now.split_whitespace().next().unwrap_or("max");
            Some(format!("{quota} {period}"))
        }
        (None, None) => None,
    };
    plan.extend(max.map(|max| Write::new(directory, "cpu.max", max)));
    if let Some(burst) = cpu.burst() {
        let file = "cpu.max.burst";
        let at = if burst < current(directory, file) {
            0
        } else {
            plan.len()
        };
        plan.insert(at, Write::new(directory, file, burst));
    }
    if let Some(idle) = cpu.idle() {
        plan.push(Write::new(directory, "cpu.idle", idle));
    }
    Ok(plan)
}

fn unified_memory(directory: &Path, memory: &LinuxMemory) -> Result<Vec<Write>, Error> {
    check_usage(directory, "memory.current", "memory.max", memory)?;
    let limit = set(memory.limit());
    let swap = match (limit, set(memory.swap())) {
        (Some(-1), None) => directory.join("memory.swap.max").exists().then_some(-1),
        (_, None) => None,
        (_, Some(-1)) => Some(-1),
        // The spec counts memory and swap together, version 2 counts swap alone.
        (Some(limit), Some(both)) if limit > 0 && both >= limit => Some(both - limit),
        (_, Some(both)) => {
            return Err(Error::invalid(format!(
                "memory.swap: {both} is no sum of a limit of memory and one of swap"
            )));
        }
    };
    let writes = [
        ("memory.swap.max", swap),
        ("memory.max", limit),
        ("memory.low", set(memory.reservation())),
    ];
    let writes = writes
        .into_iter()
        .filter_map(|(file, value)| Some(Write::new(directory, file, or_max(value?))));
    Ok(writes.collect())
}

/// Refuses a limit below what is used, if the client asked for that check.
fn check_usage(
    directory: &Path,
    usage: &str,
    file: &str,
    memory: &LinuxMemory,
) -> Result<(), Error> {
    let usage = current(directory, usage);
    let limit = set(memory.limit()).and_then(|limit| u64::try_from(limit).ok());
    match limit {
        Some(limit) if memory.check_before_update() == Some(true) && limit < usage => {
            Err(Error::invalid(format!(
                "{file}: \"{limit}\": the container uses {usage} bytes"
            )))
        }
        _ => Ok(()),
    }
}

/// The limit of one size of huge pages, and of their reservation where the kernel has that.
fn huge_pages(
    directory: &Path,
    limit: &LinuxHugepageLimit,
    suffix: &str,
) -> Result<Vec<Write>, Error> {
    let size = limit.page_size();
    if !size.ends_with('B') || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Error::invalid(format!("pageSize: {size:?} is no size")));
    }
    let write = |file: String| Write::new(directory, &file, limit.limit());
    let reserved = write(format!("hugetlb.{size}.rsvd.{suffix}"));
    let mut writes = vec![write(format!("hugetlb.{size}.{suffix}"))];
    writes.extend(Some(reserved).filter(|reserved| reserved.file.exists()));
    Ok(writes)
}

fn shares(cpu: &LinuxCpu) -> Result<Option<u64>, Error> {
    match cpu.shares() {
        None | Some(0) => Ok(None),
        Some(shares) if SHARES.contains(&shares) => Ok(Some(shares)),
        Some(shares) => Err(Error::invalid(format!(
            "cpu.shares: \"{shares}\": not between {} and {}",
            SHARES.start(),
            SHARES.end()
        ))),
    }
}

/// The version 2 weight of version 1 shares, so that the least, the usual and the most are the
/// same on both; the curve in between is runc's and libcgroups', which applies it at create.
fn weight(shares: u64) -> u64 {
    let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10 000.
    10_f64.powf(exponent).ceil() as u64
}

fn tasks(pids: &LinuxPids) -> Option<String> {
    set(Some(pids.limit())).map(or_max)
}

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|&value| value != 0)
}

/// No limit has a word of its own on version 2, and in `pids.max`.
fn or_max(value: i64) -> String {
    match value {
        -1 => "max".to_owned(),
        value => value.to_string(),
    }
}

/// A number as it is now; what is no number is the largest.
fn current(directory: &Path, file: &str) -> u64 {
    let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

/// Plans what an update of limits writes, on both versions, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(resources: &LinuxResources) {
    let directory = Path::new("/nowhere");
    let plans = [
        unified(directory, resources),
        legacy(&Cgroups::everywhere(directory), resources),
    ];
    for write in plans.into_iter().flatten().flatten() {
        // Only `unified` of the resources names files, and it must not lead out of the group.
        assert_eq!(write.file.parent(), Some(directory), "{write:?}");
        assert!(!write.name().is_empty() && write.name() != "..");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    fn shown(plan: Result<Vec<Write>, Error>) -> Vec<String> {
        let show = |write: &Write| format!("{}={}", write.name(), write.value);
        plan.unwrap().iter().map(show).collect()
    }

    fn planned_memory(now: (&str, &str), memory: &str) -> Vec<String> {
        let group = group(&[
            ("memory.limit_in_bytes", now.0),
            ("memory.memsw.limit_in_bytes", now.1),
        ]);
        let cgroups = Cgroups::of_one("memory", group.path());
        let resources = resources(&format!(r#"{{"memory":{memory}}}"#));
        shown(legacy(&cgroups, &resources))
    }

    #[test]
    fn version_1_memory_and_swap_are_never_in_contradiction() {
        let (limit, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let [raised, lowered] = [("100", "200"), ("500", "600")]
            .map(|now| planned_memory(now, r#"{"limit":300,"swap":400}"#));
        assert_eq!(raised, [format!("{swap}=400"), format!("{limit}=300")]);
        assert_eq!(lowered, [format!("{limit}=300"), format!("{swap}=400")]);
        let unlimited = planned_memory(("100", "200"), r#"{"limit":-1}"#);
        assert_eq!(unlimited, [format!("{swap}=-1"), format!("{limit}=-1")]);
        let unchanged = planned_memory(("100", "200"), r#"{"limit":0,"swap":0}"#);
        assert!(unchanged.is_empty());
    }

    #[test]
    fn version_1_time_is_never_a_larger_part_than_before_or_after() {
        let cpu = group(&[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "-1")]);
        let cgroups = Cgroups::of_one("cpu", cpu.path());
        let plan = |json| shown(legacy(&cgroups, &resources(json)));
        assert_eq!(
            plan(r#"{"cpu":{"period":50000,"quota":10000,"shares":2}}"#),
            [
                "cpu.shares=2",
                "cpu.cfs_quota_us=10000",
                "cpu.cfs_period_us=50000"
            ]
        );
        assert_eq!(
            plan(r#"{"cpu":{"period":200000,"quota":10000}}"#),
            ["cpu.cfs_period_us=200000", "cpu.cfs_quota_us=10000"]
        );
    }

    #[test]
    fn version_2_has_other_names_and_units() {
        let group = group(&[("cpu.max", "20000 100000\n"), ("memory.swap.max", "max\n")]);
        let plan = |json| shown(unified(group.path(), &resources(json)));
        assert_eq!(
            plan(r#"{"memory":{"limit":100,"swap":150,"reservation":50},"pids":{"limit":-1}}"#),
            [
                "pids.max=max",
                "memory.swap.max=50",
                "memory.max=100",
                "memory.low=50"
            ]
        );
        assert_eq!(
            plan(r#"{"memory":{"limit":-1},"cpu":{"shares":1024,"cpus":"0-1"}}"#),
            [
                "cpuset.cpus=0-1",
                "cpu.weight=100",
                "memory.swap.max=max",
                "memory.max=max"
            ]
        );
        assert_eq!(plan(r#"{"cpu":{"period":50000}}"#), ["cpu.max=20000 50000"]);
        assert_eq!(plan(r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max"]);
        assert_eq!(
            plan(r#"{"unified":{"memory.high":"5","io.weight":"7"}}"#),
            ["io.weight=7", "memory.high=5"]
        );
    }

    #[test]
    fn weights_meet_shares_at_the_ends_and_at_the_default() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let group = group(&[("memory.current", "4096\n")]);
        let cases = [
            (r#"{"cpu":{"shares":1}}"#, "cpu.shares"),
            (r#"{"cpu":{"realtimePeriod":1}}"#, "realtimePeriod"),
            (r#"{"memory":{"limit":100,"swap":50}}"#, "memory.swap"),
            (r#"{"memory":{"swap":50}}"#, "memory.swap"),
            (
                r#"{"memory":{"limit":1,"checkBeforeUpdate":true}}"#,
                "memory.max",
            ),
            (r#"{"unified":{"../memory.max":"1"}}"#, "../memory.max"),
            (r#"{"unified":{"cgroup.kill":"1"}}"#, "cgroup.kill"),
            // The group itself and the one above it.
            (r#"{"unified":{".":"1"}}"#, "\".\""),
            (r#"{"unified":{"..":"1"}}"#, "\"..\""),
            (r#"{"unified":{"memory.":"1"}}"#, "\"memory.\""),
            (
                r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":0}]}"#,
                "pageSize",
            ),
        ];
        for (json, name) in cases {
            let error = unified(group.path(), &resources(json)).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{json}");
            assert!(error.to_string().contains(name), "{error}");
        }
        let legacy_only = resources(r#"{"unified":{"memory.high":"5"}}"#);
        legacy(&Cgroups::default(), &legacy_only).unwrap_err();
        legacy(&Cgroups::default(), &resources(r#"{"memory":{"limit":5}}"#)).unwrap_err();
    }

    #[test]
    fn a_failed_update_leaves_the_limits_as_they_were() {
        let group = group(&[("pids.max", "max\n"), ("cpu.max", "max 100000\n")]);
        let cgroups = Cgroups::of_one("", group.path());
        let content = |file| std::fs::read_to_string(group.path().join(file)).unwrap();
        let wanted = r#"{"pids":{"limit":7},"cpu":{"quota":5000},"memory":{"limit":4096}}"#;
        let error = update(&cgroups, &resources(wanted)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "memory.max: the container has no such limit"
        );
        assert_eq!(
            (content("pids.max"), content("cpu.max")),
            ("max".to_owned(), "max 100000".to_owned())
        );
        let applied = update(&cgroups, &resources(r#"{"pids":{"limit":7}}"#)).unwrap();
        assert_eq!(content("pids.max"), "7");
        let error = applied.take_back(Error::invalid("later"));
        assert_eq!(error.to_string(), "later");
        assert_eq!(content("pids.max"), "max");
    }

    #[test]
    fn what_cannot_be_restored_is_reported() {
        let group = group(&[("io.max", "8:0 rbps=1\n8:16 rbps=2\n")]);
        let cgroups = Cgroups::of_one("", group.path());
        let wanted = r#"{"unified":{"io.max":"8:0 rbps=9","memory.high":"1"}}"#;
        let error = update(&cgroups, &resources(wanted))
            .unwrap_err()
            .to_string();
        assert!(error.contains("memory.high") && error.contains("stay changed: io.max"));
    }
}
