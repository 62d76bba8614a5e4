//! What a container uses, in the messages that containerd and its clients know.
//!
//! Sources: `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst` of the kernel for the files
//! and their units, `github.com/containerd/cgroups` for the messages: version 1 CPU times are
//! nanoseconds, version 2 CPU times are microseconds, memory is bytes in both.

use std::collections::HashMap;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};

use crate::cgroup::Cgroups;

/// Reads the container's usage; `None` once its control groups are gone.
///
/// A file that is absent, because the controller is not enabled or the kernel is older, leaves
/// its fields at zero.
pub(crate) fn read(cgroups: &Cgroups) -> Option<Any> {
    let (type_url, value) = match cgroups.unified() {
        Some(directory) if directory.exists() => (
            "io.containerd.cgroups.v2.Metrics",
            unified(directory).write_to_bytes(),
        ),
        Some(_) => return None,
        None => {
            cgroups
                .controller("memory")
                .or(cgroups.controller("pids"))
                .filter(|d| d.exists())?;
            (
                "io.containerd.cgroups.v1.Metrics",
                legacy(cgroups).write_to_bytes(),
            )
        }
    };
    Some(Any {
        type_url: type_url.to_owned(),
        value: value.ok()?,
        ..Any::default()
    })
}

fn legacy(cgroups: &Cgroups) -> v1::Metrics {
    let mut metrics = v1::Metrics::new();
    if let Some(pids) = cgroups.controller("pids") {
        metrics.pids = MessageField::some(v1::PidsStat {
            current: number(pids, "pids.current"),
            limit: limit(pids, "pids.max", 0),
            ..v1::PidsStat::default()
        });
    }
    if let Some(cpuacct) = cgroups.controller("cpuacct") {
        let mut cpu = v1::CPUStat::new();
        cpu.usage = MessageField::some(v1::CPUUsage {
            total: number(cpuacct, "cpuacct.usage"),
            user: number(cpuacct, "cpuacct.usage_user"),
            kernel: number(cpuacct, "cpuacct.usage_sys"),
            per_cpu: text(cpuacct, "cpuacct.usage_percpu")
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect(),
            ..v1::CPUUsage::default()
        });
        if let Some(directory) = cgroups.controller("cpu") {
            let stat = Table::read(directory, "cpu.stat");
            cpu.throttling = MessageField::some(v1::Throttle {
                periods: stat.get("nr_periods"),
                throttled_periods: stat.get("nr_throttled"),
                throttled_time: stat.get("throttled_time"),
                ..v1::Throttle::default()
            });
        }
        metrics.cpu = MessageField::some(cpu);
    }
    if let Some(memory) = cgroups.controller("memory") {
        metrics.memory = MessageField::some(legacy_memory(memory));
        let oom = Table::read(memory, "memory.oom_control");
        metrics.memory_oom_control = MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: oom.get("oom_kill_disable"),
            under_oom: oom.get("under_oom"),
            oom_kill: oom.get("oom_kill"),
            ..v1::MemoryOomControl::default()
        });
    }
    if let Some(blkio) = cgroups.controller("blkio") {
        metrics.blkio = MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: devices(blkio, "throttle.io_service_bytes_recursive"),
            io_serviced_recursive: devices(blkio, "throttle.io_serviced_recursive"),
            ..v1::BlkIOStat::default()
        });
    }
    metrics
}

fn legacy_memory(memory: &Path) -> v1::MemoryStat {
    let stat = Table::read(memory, "memory.stat");
    let entry = |prefix: &str| {
        MessageField::some(v1::MemoryEntry {
            usage: number(memory, &format!("{prefix}.usage_in_bytes")),
            limit: number(memory, &format!("{prefix}.limit_in_bytes")),
            max: number(memory, &format!("{prefix}.max_usage_in_bytes")),
            failcnt: number(memory, &format!("{prefix}.failcnt")),
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

fn unified(directory: &Path) -> v2::Metrics {
    let mut metrics = v2::Metrics::new();
    metrics.pids = MessageField::some(v2::PidsStat {
        current: number(directory, "pids.current"),
        limit: limit(directory, "pids.max", 0),
        ..v2::PidsStat::default()
    });
    let cpu = Table::read(directory, "cpu.stat");
    metrics.cpu = MessageField::some(v2::CPUStat {
        usage_usec: cpu.get("usage_usec"),
        user_usec: cpu.get("user_usec"),
        system_usec: cpu.get("system_usec"),
        nr_periods: cpu.get("nr_periods"),
        nr_throttled: cpu.get("nr_throttled"),
        throttled_usec: cpu.get("throttled_usec"),
        nr_bursts: cpu.get("nr_bursts"),
        burst_usec: cpu.get("burst_usec"),
        ..v2::CPUStat::default()
    });
    metrics.memory = MessageField::some(unified_memory(directory));
    let events = Table::read(directory, "memory.events");
    metrics.memory_events = MessageField::some(v2::MemoryEvents {
        low: events.get("low"),
        high: events.get("high"),
        max: events.get("max"),
        oom: events.get("oom"),
        oom_kill: events.get("oom_kill"),
        oom_group_kill: events.get("oom_group_kill"),
        ..v2::MemoryEvents::default()
    });
    metrics.io = MessageField::some(v2::IOStat {
        usage: text(directory, "io.stat")
            .lines()
            .filter_map(unified_io)
            .collect(),
        ..v2::IOStat::default()
    });
    metrics
}

fn unified_memory(directory: &Path) -> v2::MemoryStat {
    let stat = Table::read(directory, "memory.stat");
    v2::MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: number(directory, "memory.current"),
        usage_limit: limit(directory, "memory.max", u64::MAX),
        max_usage: number(directory, "memory.peak"),
        swap_usage: number(directory, "memory.swap.current"),
        swap_limit: limit(directory, "memory.swap.max", u64::MAX),
        swap_max_usage: number(directory, "memory.swap.peak"),
        ..v2::MemoryStat::default()
    }
}

/// A line of `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn unified_io(line: &str) -> Option<v2::IOEntry> {
    let (device, values) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let values: HashMap<&str, u64> = values
        .split(' ')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    let get = |name| values.get(name).copied().unwrap_or_default();
    Some(v2::IOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        rbytes: get("rbytes"),
        wbytes: get("wbytes"),
        rios: get("rios"),
        wios: get("wios"),
        ..v2::IOEntry::default()
    })
}

/// The lines of a `blkio` file: `8:0 Read 4096`. Totals without a device are left out.
fn devices(directory: &Path, file: &str) -> Vec<v1::BlkIOEntry> {
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
    text(directory, &format!("blkio.{file}"))
        .lines()
        .filter_map(parse)
        .collect()
}

fn text(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn number(directory: &Path, file: &str) -> u64 {
    text(directory, file).trim().parse().unwrap_or_default()
}

/// A limit, which may be the word `max`.
fn limit(directory: &Path, file: &str, unlimited: u64) -> u64 {
    match text(directory, file).trim() {
        "max" => unlimited,
        text => text.parse().unwrap_or_default(),
    }
}

/// A file of lines `name value`.
struct Table(HashMap<String, u64>);

impl Table {
    fn read(directory: &Path, file: &str) -> Self {
        Self::parse(&text(directory, file))
    }

    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn version_2_times_stay_microseconds_and_limits_may_be_max() {
        let directory = recorded(&[
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            ),
        ]);
        let metrics = unified(directory.path());
        assert_eq!(metrics.cpu.usage_usec, 1500);
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit),
            (4096, u64::MAX)
        );
        assert_eq!(metrics.memory_events.oom_kill, 1);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 0));
        assert_eq!(
            (metrics.io.usage[0].rbytes, metrics.io.usage[0].wios),
            (1, 4)
        );
    }

    #[test]
    fn version_1_block_devices_are_read_without_their_totals() {
        let directory = recorded(&[(
            "blkio.throttle.io_serviced_recursive",
            "254:0 Read 7\n254:0 Write 1\nTotal 8\n",
        )]);
        let found = devices(directory.path(), "throttle.io_serviced_recursive");
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].major, found[0].op.as_str(), found[0].value),
            (254, "Read", 7)
        );
    }
}
