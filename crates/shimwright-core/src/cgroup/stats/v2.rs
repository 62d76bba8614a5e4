//! Usage of cgroup v2, whose CPU times and pressure totals are microseconds.

use std::collections::HashMap;

use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::MessageField;

use super::{Group, huge_page_sizes};

/// Reads a group.
pub(super) fn read(group: &Group) -> v2::Metrics {
    let mut metrics = v2::Metrics::new();
    metrics.pids = MessageField::some(v2::PidsStat {
        current: group.number("pids.current"),
        limit: group.limit("pids.max"),
        ..v2::PidsStat::default()
    });
    let cpu = group.table("cpu.stat");
    metrics.cpu = MessageField::some(v2::CPUStat {
        usage_usec: cpu.get("usage_usec"),
        user_usec: cpu.get("user_usec"),
        system_usec: cpu.get("system_usec"),
        nr_periods: cpu.get("nr_periods"),
        nr_throttled: cpu.get("nr_throttled"),
        throttled_usec: cpu.get("throttled_usec"),
        nr_bursts: cpu.get("nr_bursts"),
        burst_usec: cpu.get("burst_usec"),
        psi: pressure(group, "cpu.pressure"),
        ..v2::CPUStat::default()
    });
    metrics.memory = MessageField::some(memory_stat(group));
    let events = group.table("memory.events");
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
        usage: group.text("io.stat").lines().filter_map(io_entry).collect(),
        psi: pressure(group, "io.pressure"),
        ..v2::IOStat::default()
    });
    metrics.hugetlb = huge_page_sizes()
        .iter()
        .filter_map(|size| huge_pages(group, size))
        .collect();
    metrics.rdma = rdma(group);
    metrics
}

fn memory_stat(group: &Group) -> v2::MemoryStat {
    let stat = group.table("memory.stat");
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
        // Since Linux 5.9 the kernel counts them in two parts.
        workingset_refault: stat.get("workingset_refault")
            + stat.get("workingset_refault_anon")
            + stat.get("workingset_refault_file"),
        workingset_activate: stat.get("workingset_activate")
            + stat.get("workingset_activate_anon")
            + stat.get("workingset_activate_file"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: group.number("memory.current"),
        usage_limit: group.limit("memory.max"),
        max_usage: group.number("memory.peak"),
        swap_usage: group.number("memory.swap.current"),
        swap_limit: group.limit("memory.swap.max"),
        swap_max_usage: group.number("memory.swap.peak"),
        psi: pressure(group, "memory.pressure"),
        ..v2::MemoryStat::default()
    }
}

/// A pressure file (`Documentation/accounting/psi.rst`); none if the kernel does not measure it.
fn pressure(group: &Group, file: &str) -> MessageField<v2::PSIStats> {
    pressure_of(&group.text(file))
}

pub(super) fn pressure_of(text: &str) -> MessageField<v2::PSIStats> {
    let line = |name: &str| {
        let values = text.lines().find_map(|line| {
            let (first, values) = line.split_once(' ')?;
            (first == name).then_some(values)
        })?;
        let values: HashMap<_, _> = values
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let percent = |name| values.get(name)?.parse::<f64>().ok();
        Some(v2::PSIData {
            avg10: percent("avg10")?,
            avg60: percent("avg60")?,
            avg300: percent("avg300")?,
            total: values.get("total")?.parse().ok()?,
            ..v2::PSIData::default()
        })
    };
    if text.is_empty() {
        return MessageField::none();
    }
    MessageField::some(v2::PSIStats {
        some: line("some").into(),
        full: line("full").into(),
        ..v2::PSIStats::default()
    })
}

fn huge_pages(group: &Group, size: &str) -> Option<v2::HugeTlbStat> {
    let current = group.text(&format!("hugetlb.{size}.current"));
    Some(v2::HugeTlbStat {
        current: current.trim().parse().ok()?,
        max: group.limit(&format!("hugetlb.{size}.max")),
        pagesize: size.to_owned(),
        failcnt: group.table(&format!("hugetlb.{size}.events")).get("max"),
        ..v2::HugeTlbStat::default()
    })
}

/// `rdma.current` and `rdma.max`: `mlx4_0 hca_handle=2 hca_object=max`.
fn rdma(group: &Group) -> MessageField<v2::RdmaStat> {
    let entries =
        |file: &str| -> Vec<_> { group.text(file).lines().filter_map(rdma_entry).collect() };
    let (current, limit) = (entries("rdma.current"), entries("rdma.max"));
    if current.is_empty() && limit.is_empty() {
        return MessageField::none();
    }
    MessageField::some(v2::RdmaStat {
        current,
        limit,
        ..v2::RdmaStat::default()
    })
}

pub(super) fn rdma_entry(line: &str) -> Option<v2::RdmaEntry> {
    let (device, values) = line.split_once(' ')?;
    let value = |name: &str| {
        let mut pairs = values.split(' ').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(found, _)| *found == name)?;
        if value == "max" {
            return Some(u32::MAX);
        }
        value.parse().ok()
    };
    Some(v2::RdmaEntry {
        device: device.to_owned(),
        hca_handles: value("hca_handle")?,
        hca_objects: value("hca_object")?,
        ..v2::RdmaEntry::default()
    })
}

/// A line of `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
pub(super) fn io_entry(line: &str) -> Option<v2::IOEntry> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::recorded;
    use super::*;

    /// The files of a group as Linux 6.1 had them: limits of 64 MiB, 100 tasks and a fifth of a
    /// processor, after a file was written, dropped from the cache and read again, a process was
    /// killed for lack of memory, and another had filled 20 MiB of a tmpfs. From
    /// `head -n 1000 *`, which puts a line with its name before each.
    const RECORDED: &str = include_str!("v2.txt");

    #[test]
    fn is_read_as_a_kernel_writes_it() {
        let files: Vec<(&str, &str)> = RECORDED
            .split("==> ")
            .filter_map(|part| part.split_once(" <==\n"))
            .collect();
        assert_eq!(files.len(), 20);
        let directory = recorded(&files);
        let metrics = read(&Group::open(directory.path()).unwrap());
        let cpu = &metrics.cpu;
        assert_eq!(
            [cpu.usage_usec, cpu.user_usec, cpu.system_usec],
            [2_507_198, 346_126, 2_161_071]
        );
        assert_eq!(
            [cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec],
            [128, 125, 9_887_445]
        );
        assert_eq!((cpu.psi.some.avg10, cpu.psi.full.total), (34.46, 7_577_006));
        let memory = &metrics.memory;
        assert_eq!(
            [memory.usage, memory.usage_limit, memory.max_usage],
            [21_389_312, 64 << 20, 64 << 20]
        );
        assert_eq!(
            [memory.anon, memory.file, memory.shmem, memory.slab],
            [98_304, 21_098_496, 20 << 20, 130_216]
        );
        assert_eq!((memory.swap_usage, memory.swap_limit), (0, u64::MAX));
        assert_eq!((memory.workingset_refault, memory.pgmajfault), (57, 16));
        assert_eq!(memory.psi.some.total, 373_668);
        let events = &metrics.memory_events;
        assert_eq!((events.max, events.oom, events.oom_kill), (234, 1, 1));
        assert_eq!((metrics.pids.current, metrics.pids.limit), (1, 100));
        let device = &metrics.io.usage[0];
        assert_eq!((device.major, device.minor), (254, 0));
        assert_eq!((device.rbytes, device.wbytes), (26_435_584, 25_169_920));
        assert_eq!((device.rios, device.wios), (224, 25));
        assert_eq!(metrics.io.psi.full.total, 7292);
        assert!(metrics.rdma.is_none() || metrics.rdma.current.is_empty());
        let group = Group::open(directory.path()).unwrap();
        let pages = huge_pages(&group, "2MB").unwrap();
        assert_eq!((pages.current, pages.max, pages.failcnt), (0, u64::MAX, 0));
    }

    #[test]
    fn times_stay_microseconds_and_limits_may_be_max() {
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
        let metrics = read(&Group::open(directory.path()).unwrap());
        assert_eq!(metrics.cpu.usage_usec, 1500);
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit),
            (4096, u64::MAX)
        );
        assert_eq!(metrics.memory_events.oom_kill, 1);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, u64::MAX));
        assert_eq!(
            (metrics.io.usage[0].rbytes, metrics.io.usage[0].wios),
            (1, 4)
        );
    }

    #[test]
    fn pressure_is_percent_and_microseconds() {
        let directory = recorded(&[
            (
                "cpu.pressure",
                "some avg10=1.53 avg60=0.87 avg300=0.26 total=8120944\n\
                 full avg10=0.00 avg60=0.00 avg300=0.00 total=7993012\n",
            ),
            (
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=17\n",
            ),
        ]);
        let metrics = read(&Group::open(directory.path()).unwrap());
        let cpu = &metrics.cpu.psi;
        assert_eq!((cpu.some.avg10, cpu.some.avg60), (1.53, 0.87));
        assert_eq!((cpu.some.avg300, cpu.some.total), (0.26, 8_120_944));
        assert_eq!((cpu.full.avg10, cpu.full.total), (0.0, 7_993_012));
        assert_eq!(metrics.memory.psi.some.total, 17);
        assert!(metrics.memory.psi.full.is_none());
        // No such file: the kernel does not measure it, which is not the same as no pressure.
        assert!(metrics.io.psi.is_none());
    }

    #[test]
    fn memory_events_and_details_are_bytes_and_counts() {
        let directory = recorded(&[
            (
                "memory.stat",
                "anon 67162112\nfile 4096\nkernel_stack 16384\nslab 170680\npgfault 16613\n\
                 workingset_refault_anon 3\nworkingset_refault_file 4\n",
            ),
            ("memory.peak", "68157440\n"),
            ("memory.swap.current", "0\n"),
            ("memory.swap.max", "max\n"),
        ]);
        let memory = read(&Group::open(directory.path()).unwrap()).memory;
        assert_eq!((memory.anon, memory.kernel_stack), (67_162_112, 16_384));
        assert_eq!((memory.pgfault, memory.workingset_refault), (16_613, 7));
        assert_eq!(
            (memory.max_usage, memory.swap_limit),
            (68_157_440, u64::MAX)
        );
    }

    #[test]
    fn devices_have_their_own_lists() {
        let directory = recorded(&[
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.events", "max 5\n"),
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
            ("rdma.max", "mlx4_0 hca_handle=max hca_object=4000\n"),
        ]);
        let group = Group::open(directory.path()).unwrap();
        let pages = huge_pages(&group, "2MB").unwrap();
        assert_eq!(
            (pages.current, pages.max, pages.failcnt),
            (4_194_304, u64::MAX, 5)
        );
        assert!(huge_pages(&group, "1GB").is_none());
        let rdma = rdma(&group);
        assert_eq!(
            (rdma.current[0].hca_handles, rdma.limit[0].hca_handles),
            (2, u32::MAX)
        );
        assert_eq!(rdma.limit[0].hca_objects, 4000);
    }
}
