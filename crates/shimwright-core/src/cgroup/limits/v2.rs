//! Limits of cgroup v2: one group, with other names and units than v1.

use std::path::Path;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Write, burst_and_idle, check_usage, huge_pages, or_max, set, shares, tasks};
use crate::cgroup::v2::Group;
use crate::error::Error;

/// What an update writes.
pub(super) fn plan(group: &Group, resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    let directory = group.directory();
    let mut plan = Vec::new();
    if let Some(pids) = resources.pids()
        && let Some(limit) = tasks(pids)
    {
        plan.push(Write::new(directory, "pids.max", limit));
    }
    if let Some(cpu) = resources.cpu() {
        plan.extend(cpu_limits(directory, cpu)?);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        plan.extend(huge_pages(directory, limit, "max")?);
    }
    if let Some(memory) = resources.memory() {
        plan.extend(memory_limits(directory, memory)?);
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

fn cpu_limits(directory: &Path, cpu: &LinuxCpu) -> Result<Vec<Write>, Error> {
    let is_realtime = cpu.realtime_period().unwrap_or_default() != 0
        || cpu.realtime_runtime().unwrap_or_default() != 0;
    if is_realtime {
        return Err(Error::invalid(
            "realtimePeriod, realtimeRuntime: cgroup v2 has no such limits",
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
    burst_and_idle(&mut plan, directory, "cpu.max.burst", cpu);
    Ok(plan)
}

fn memory_limits(directory: &Path, memory: &LinuxMemory) -> Result<Vec<Write>, Error> {
    check_usage(directory, "memory.current", "memory.max", memory)?;
    let limit = set(memory.limit());
    let swap = match (limit, set(memory.swap())) {
        (Some(-1), None) => directory.join("memory.swap.max").exists().then_some(-1),
        (_, None) => None,
        (_, Some(-1)) => Some(-1),
        // The spec counts memory and swap together, v2 counts swap alone.
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

/// Whether a name of `unified` is that of a limit: a file of the container's own group that does not
/// change the group itself.
pub(crate) fn is_unified(file: &str) -> bool {
    let is_limit = file.split_once('.').is_some_and(|(controller, limit)| {
        !controller.is_empty() && controller != "cgroup" && !limit.is_empty()
    });
    is_limit && !file.contains('/')
}

/// The weight of v1 shares, so that the least, the usual and the most are the
/// same on both; the curve in between is runc's and libcgroups', which applies it at create.
fn weight(shares: u64) -> u64 {
    let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10 000.
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{group, resources, shown};
    use super::*;

    fn planned(group: &tempfile::TempDir, json: &str) -> Result<Vec<Write>, Error> {
        plan(&Group(group.path().into()), &resources(json))
    }

    #[test]
    fn has_other_names_and_units() {
        let group = group(&[("cpu.max", "20000 100000\n"), ("memory.swap.max", "max\n")]);
        let plan = |json| shown(planned(&group, json));
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
            let error = planned(&group, json).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{json}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
