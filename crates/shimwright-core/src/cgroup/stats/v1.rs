//! Usage of cgroup v1, whose CPU times are nanoseconds.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::protobuf::MessageField;

use super::{Group, huge_page_sizes};

/// Reads the groups that `open` finds by their controllers.
pub(super) fn read(open: impl Fn(&str) -> Option<Group>) -> v1::Metrics {
    let mut metrics = v1::Metrics::new();
    if let Some(pids) = open("pids") {
        metrics.pids = MessageField::some(v1::PidsStat {
            current: pids.number("pids.current"),
            // Without a limit this is `max`, which containerd reports as 0 on v1.
            limit: pids.number("pids.max"),
            ..v1::PidsStat::default()
        });
    }
    metrics.cpu = cpu_stat(&open).into();
    if let Some(memory) = open("memory") {
        metrics.memory = MessageField::some(memory_stat(&memory));
        let oom = memory.table("memory.oom_control");
        metrics.memory_oom_control = MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: oom.get("oom_kill_disable"),
            under_oom: oom.get("under_oom"),
            oom_kill: oom.get("oom_kill"),
            ..v1::MemoryOomControl::default()
        });
    }
    if let Some(blkio) = open("blkio") {
        metrics.blkio = MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: devices(
                &blkio.text("blkio.throttle.io_service_bytes_recursive"),
            ),
            io_serviced_recursive: devices(&blkio.text("blkio.throttle.io_serviced_recursive")),
            ..v1::BlkIOStat::default()
        });
    }
    if let Some(hugetlb) = open("hugetlb") {
        metrics.hugetlb = huge_page_sizes()
            .iter()
            .map(|size| v1::HugetlbStat {
                usage: hugetlb.number(&format!("hugetlb.{size}.usage_in_bytes")),
                max: hugetlb.number(&format!("hugetlb.{size}.max_usage_in_bytes")),
                failcnt: hugetlb.number(&format!("hugetlb.{size}.failcnt")),
                pagesize: size.clone(),
                ..v1::HugetlbStat::default()
            })
            .collect();
    }
    metrics
}

fn cpu_stat(open: &impl Fn(&str) -> Option<Group>) -> Option<v1::CPUStat> {
    let cpuacct = open("cpuacct")?;
    let mut cpu = v1::CPUStat::new();
    cpu.usage = MessageField::some(v1::CPUUsage {
        total: cpuacct.number("cpuacct.usage"),
        user: cpuacct.number("cpuacct.usage_user"),
        kernel: cpuacct.number("cpuacct.usage_sys"),
        per_cpu: cpuacct
            .text("cpuacct.usage_percpu")
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect(),
        ..v1::CPUUsage::default()
    });
    if let Some(group) = open("cpu") {
        let stat = group.table("cpu.stat");
        cpu.throttling = MessageField::some(v1::Throttle {
            periods: stat.get("nr_periods"),
            throttled_periods: stat.get("nr_throttled"),
            throttled_time: stat.get("throttled_time"),
            ..v1::Throttle::default()
        });
    }
    Some(cpu)
}

fn memory_stat(memory: &Group) -> v1::MemoryStat {
    let stat = memory.table("memory.stat");
    let entry = |prefix: &str| {
        MessageField::some(v1::MemoryEntry {
            usage: memory.number(&format!("{prefix}.usage_in_bytes")),
            limit: memory.number(&format!("{prefix}.limit_in_bytes")),
            max: memory.number(&format!("{prefix}.max_usage_in_bytes")),
            failcnt: memory.number(&format!("{prefix}.failcnt")),
            ..v1::MemoryEntry::default()
        })
    };
    v1::MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        ..v1::MemoryStat::default()
    }
}

/// The lines of a `blkio` file: `8:0 Read 4096`. Totals without a device are left out.
pub(super) fn devices(text: &str) -> Vec<v1::BlkIOEntry> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        Some(v1::BlkIOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: fields.next()?.to_owned(),
            value: fields.next()?.parse().ok()?,
            ..v1::BlkIOEntry::default()
        })
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::recorded;
    use super::*;

    #[test]
    fn times_are_nanoseconds_and_no_limit_of_tasks_is_zero() {
        let directory = recorded(&[
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpuacct.usage", "1500000000\n"),
            ("cpuacct.usage_user", "1000000000\n"),
            ("cpuacct.usage_sys", "500000000\n"),
            ("cpuacct.usage_percpu", "900000000 600000000 \n"),
            (
                "cpu.stat",
                "nr_periods 10\nnr_throttled 4\nthrottled_time 250000000\n",
            ),
            ("memory.usage_in_bytes", "4096\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
        ]);
        let metrics = read(|_| Group::open(directory.path()));
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 0));
        let usage = &metrics.cpu.usage;
        assert_eq!((usage.total, usage.user), (1_500_000_000, 1_000_000_000));
        assert_eq!(usage.kernel, 500_000_000);
        assert_eq!(usage.per_cpu, [900_000_000, 600_000_000]);
        assert_eq!(metrics.cpu.throttling.throttled_time, 250_000_000);
        assert_eq!(metrics.memory.usage.usage, 4096);
        assert_eq!(metrics.memory_oom_control.oom_kill, 2);
    }

    #[test]
    fn block_devices_are_read_without_their_totals() {
        let directory = recorded(&[(
            "blkio.throttle.io_serviced_recursive",
            "254:0 Read 7\n254:0 Write 1\nTotal 8\n",
        )]);
        let group = Group::open(directory.path()).unwrap();
        let found = devices(&group.text("blkio.throttle.io_serviced_recursive"));
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].major, found[0].op.as_str(), found[0].value),
            (254, "Read", 7)
        );
    }
}
