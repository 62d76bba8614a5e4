//! What a container uses, in the messages that containerd and its clients know.
//!
//! Sources: `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst` of the kernel for the files
//! and their units, `github.com/containerd/cgroups` for the messages: v1 CPU times are nanoseconds,
//! v2 CPU times and pressure totals are microseconds, memory is bytes in both.

mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use rustix::fs::{Mode, OFlags};

use super::file::Table;
use super::{Cgroups, Version};

/// Where the kernel lists the sizes of its huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// Reads the container's usage; `None` once its cgroups are gone.
///
/// A file that is absent, because the controller is not enabled or the kernel is older, leaves
/// its fields at zero.
pub(crate) fn read(cgroups: &Cgroups) -> Option<Any> {
    let (type_url, value) = match cgroups.version() {
        Version::V2(group) => (
            "io.containerd.cgroups.v2.Metrics",
            v2::read(&Group::open(group.directory())?).write_to_bytes(),
        ),
        Version::V1(groups) => {
            let open = |name: &str| groups.directory(name).and_then(Group::open);
            let metrics = v1::read(open);
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

/// The open directory of a cgroup. A kubelet reads some thirty files of every container
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
                // A file of a cgroup is one record, which is cut only by the buffer
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

    /// A limit of v2, which may be the word `max`: containerd reports the largest number.
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

/// Reads a file of a cgroup as each of those that have lines, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    v2::pressure_of(text);
    v1::devices(text);
    for line in text.lines() {
        v2::rdma_entry(line);
        v2::io_entry(line);
    }
    Table::parse(text).get("max");
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn recorded(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
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
    fn a_group_that_is_gone_has_no_usage() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", "memory"] {
            assert!(read(&Cgroups::of_one(name, directory.path())).is_some());
            assert!(read(&Cgroups::of_one(name, &directory.path().join("gone"))).is_none());
        }
    }
}
