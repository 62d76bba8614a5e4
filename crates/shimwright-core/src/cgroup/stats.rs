//! What a container uses, in the messages that containerd and its clients know.
//!
//! Sources: `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst` of the kernel for the files
//! and their units, `github.com/containerd/cgroups` for the messages: version 1 CPU times are
//! nanoseconds, version 2 CPU times and pressure totals are microseconds, memory is bytes in both.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::{Cgroups, Table};

/// Where the kernel lists the sizes of its huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// Reads the container's usage; `None` once its control groups are gone.
///
/// A file that is absent, because the controller is not enabled or the kernel is older, leaves
/// its fields at zero.
pub(crate) fn read(cgroups: &Cgroups) -> Option<Any> {
    let (type_url, value) = match cgroups.unified() {
        Some(directory) => (
            "io.containerd.cgroups.v2.Metrics",
            unified(&Group::open(directory)?).write_to_bytes(),
        ),
        None => {
            let open = |name: &str| cgroups.controller(name).and_then(Group::open);
            let metrics = legacy(open);
            if metrics.memory.is_none() && metrics.pids.is_none() {
                return None;
            }
            ("io.containerd.cgroups.v1.Metrics", metrics.write_to_bytes())
        }
    };
    Some(Any {
        type_url: type_url.to_owned(),
        value: value.ok()?,
        ..Any::default()
    })
}

fn legacy(open: impl Fn(&str) -> Option<Group>) -> v1::Metrics {
    let mut metrics = v1::Metrics::new();
    if let Some(pids) = open("pids") {
        metrics.pids = MessageField::some(v1::PidsStat {
            current: pids.number("pids.current"),
            // Without a limit this is `max`, which containerd reports as 0 on version 1.
            limit: pids.number("pids.max"),
            ..v1::PidsStat::default()
        });
    }
    if let Some(cpuacct) = open("cpuacct") {
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
        metrics.cpu = MessageField::some(cpu);
    }
    if let Some(memory) = open("memory") {
        metrics.memory = MessageField::some(legacy_memory(&memory));
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

fn legacy_memory(memory: &Group) -> v1::MemoryStat {
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

fn unified(group: &Group) -> v2::Metrics {
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
    metrics.memory = MessageField::some(unified_memory(group));
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
        usage: group
            .text("io.stat")
            .lines()
            .filter_map(unified_io)
            .collect(),
        psi: pressure(group, "io.pressure"),
        ..v2::IOStat::default()
    });
    metrics.hugetlb = huge_page_sizes()
        .iter()
        .filter_map(|size| unified_huge_pages(group, size))
        .collect();
    metrics.rdma = rdma(group);
    metrics
}

fn unified_memory(group: &Group) -> v2::MemoryStat {
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

fn pressure_of(text: &str) -> MessageField<v2::PSIStats> {
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

fn unified_huge_pages(group: &Group, size: &str) -> Option<v2::HugeTlbStat> {
    let current = group.text(&format!("hugetlb.{size}.current"));
    Some(v2::HugeTlbStat {
        current: current.trim().parse().ok()?,
        max: group.limit(&format!("hugetlb.{size}.max")),
        pagesize: size.to_owned(),
        failcnt: group.table(&format!("hugetlb.{size}.events")).get("max"),
        ..v2::HugeTlbStat::default()
    })
}

/// The sizes of huge pages, as the names of files hold them: `2MB`, `1GB`. They do not change.
fn huge_page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let mut sizes: Vec<u64> = std::fs::read_dir(HUGE_PAGES)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
                kib.parse().ok()
            })
            .collect();
        sizes.sort_unstable();
        sizes.into_iter().map(huge_page_size).collect()
    })
}

/// As the kernel writes it (`mem_fmt` in `mm/hugetlb_cgroup.c`).
fn huge_page_size(kib: u64) -> String {
    match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    }
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

fn rdma_entry(line: &str) -> Option<v2::RdmaEntry> {
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
fn devices(text: &str) -> Vec<v1::BlkIOEntry> {
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

/// The open directory of a control group. A kubelet reads some thirty files of every container
/// every ten seconds, so each takes three system calls and no walk from the root.
struct Group(OwnedFd);

impl Group {
    fn open(directory: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::empty())
            .ok()
            .map(Self)
    }

    fn text(&self, file: &str) -> String {
        let read = || -> rustix::io::Result<Vec<u8>> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.0, file, flags, Mode::empty())?;
            let mut content = vec![0; 4096];
            let mut length = 0;
            loop {
                let read = rustix::io::read(&file, &mut content[length..])?;
                length += read;
                // A file of a control group is one record, which is cut only by the buffer
                // (`seq_read_iter` in the kernel).
                if length < content.len() {
                    content.truncate(length);
                    return Ok(content);
                }
                content.resize(2 * length, 0);
            }
        };
        read()
            .ok()
            .and_then(|content| String::from_utf8(content).ok())
            .unwrap_or_default()
    }

    fn number(&self, file: &str) -> u64 {
        self.text(file).trim().parse().unwrap_or_default()
    }

    /// A limit of version 2, which may be the word `max`: containerd reports the largest number.
    fn limit(&self, file: &str) -> u64 {
        match self.text(file).trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or_default(),
        }
    }

    fn table(&self, file: &str) -> Table {
        Table::parse(&self.text(file))
    }
}

/// Reads a file of a control group as each of those that have lines, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    pressure_of(text);
    devices(text);
    for line in text.lines() {
        rdma_entry(line);
        unified_io(line);
    }
    Table::parse(text).get("max");
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

    /// The files of a group as Linux 6.1 had them: limits of 64 MiB, 100 tasks and a fifth of a
    /// processor, after a file was written, dropped from the cache and read again, a process was
    /// killed for lack of memory, and another had filled 20 MiB of a tmpfs. From
    /// `head -n 1000 *`, which puts a line with its name before each.
    const RECORDED: &str = include_str!("stats-v2.txt");

    #[test]
    fn version_2_is_read_as_a_kernel_writes_it() {
        let files: Vec<(&str, &str)> = RECORDED
            .split("==> ")
            .filter_map(|part| part.split_once(" <==\n"))
            .collect();
        assert_eq!(files.len(), 20);
        let directory = recorded(&files);
        let metrics = unified(&Group::open(directory.path()).unwrap());
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
        let pages = unified_huge_pages(&group, "2MB").unwrap();
        assert_eq!((pages.current, pages.max, pages.failcnt), (0, u64::MAX, 0));
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
        let metrics = unified(&Group::open(directory.path()).unwrap());
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
    fn version_2_pressure_is_percent_and_microseconds() {
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
        let metrics = unified(&Group::open(directory.path()).unwrap());
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
    fn version_2_memory_events_and_details_are_bytes_and_counts() {
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
        let memory = unified(&Group::open(directory.path()).unwrap()).memory;
        assert_eq!((memory.anon, memory.kernel_stack), (67_162_112, 16_384));
        assert_eq!((memory.pgfault, memory.workingset_refault), (16_613, 7));
        assert_eq!(
            (memory.max_usage, memory.swap_limit),
            (68_157_440, u64::MAX)
        );
    }

    #[test]
    fn version_2_devices_have_their_own_lists() {
        let directory = recorded(&[
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.events", "max 5\n"),
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
            ("rdma.max", "mlx4_0 hca_handle=max hca_object=4000\n"),
        ]);
        let group = Group::open(directory.path()).unwrap();
        let pages = unified_huge_pages(&group, "2MB").unwrap();
        assert_eq!(
            (pages.current, pages.max, pages.failcnt),
            (4_194_304, u64::MAX, 5)
        );
        assert!(unified_huge_pages(&group, "1GB").is_none());
        let rdma = rdma(&group);
        assert_eq!(
            (rdma.current[0].hca_handles, rdma.limit[0].hca_handles),
            (2, u32::MAX)
        );
        assert_eq!(rdma.limit[0].hca_objects, 4000);
    }

    #[test]
    fn huge_pages_are_named_as_their_files_are() {
        let names = [64, 2048, 1 << 20].map(huge_page_size);
        assert_eq!(names, ["64KB", "2MB", "1GB"]);
    }

    #[test]
    fn a_long_file_is_read_to_its_end() {
        let long = format!("{}\nlast 7\n", "x 1\n".repeat(5000));
        let directory = recorded(&[("cpu.stat", &long)]);
        let group = Group::open(directory.path()).unwrap();
        assert_eq!(group.table("cpu.stat").get("last"), 7);
    }

    #[test]
    fn version_1_times_are_nanoseconds_and_no_limit_of_tasks_is_zero() {
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
        let metrics = legacy(|_| Group::open(directory.path()));
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
    fn a_group_that_is_gone_has_no_usage() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", "memory"] {
            assert!(read(&Cgroups::of_one(name, directory.path())).is_some());
            assert!(read(&Cgroups::of_one(name, &directory.path().join("gone"))).is_none());
        }
    }

    #[test]
    fn version_1_block_devices_are_read_without_their_totals() {
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
