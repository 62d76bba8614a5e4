//! Limits of cgroup v1: one group for each controller.

use std::path::Path;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Write, burst_and_idle, check_usage, current, huge_pages, set, shares, tasks};
use crate::cgroup::v1::Groups;
use crate::error::Error;

/// What an update writes.
pub(super) fn plan(groups: &Groups, resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(Error::invalid(
            "unified: this machine controls resources with cgroup v1",
        ));
    }
    let group = |name: &str| {
        let missing = || Error::invalid(format!("{name}: this machine has no such controller"));
        groups.directory(name).ok_or_else(missing)
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
        let writes = cpu_limits(groups.directory("cpu").unwrap_or(Path::new("")), cpu)?;
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
        plan.extend(memory_limits(group("memory")?, memory)?);
    }
    Ok(plan)
}

fn cpu_limits(directory: &Path, cpu: &LinuxCpu) -> Result<Vec<Write>, Error> {
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
    burst_and_idle(&mut plan, directory, "cpu.cfs_burst_us", cpu);
    Ok(plan)
}

fn memory_limits(directory: &Path, memory: &LinuxMemory) -> Result<Vec<Write>, Error> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{group, resources, shown};
    use super::*;
    use crate::cgroup::Cgroups;

    fn planned(cgroups: &Cgroups, json: &str) -> Vec<String> {
        shown(plan(&cgroups.v1, &resources(json)))
    }

    fn planned_memory(now: (&str, &str), memory: &str) -> Vec<String> {
        let group = group(&[
            ("memory.limit_in_bytes", now.0),
            ("memory.memsw.limit_in_bytes", now.1),
        ]);
        let cgroups = Cgroups::of_one("memory", group.path());
        let resources = resources(&format!(r#"{{"memory":{memory}}}"#));
        shown(plan(&cgroups.v1, &resources))
    }

    #[test]
    fn memory_and_swap_are_never_in_contradiction() {
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
    fn what_v1_does_not_have_is_refused() {
        let none = Cgroups::default();
        for json in [
            r#"{"unified":{"memory.high":"5"}}"#,
            r#"{"memory":{"limit":5}}"#,
        ] {
            plan(&none.v1, &resources(json)).unwrap_err();
        }
    }

    #[test]
    fn time_is_never_a_larger_part_than_before_or_after() {
        let cpu = group(&[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "-1")]);
        let cgroups = Cgroups::of_one("cpu", cpu.path());
        let plan = |json| planned(&cgroups, json);
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
}
