//! Notices that the kernel's OOM killer has ended processes of a container.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::file::Table;
use super::notice::Notice;
use super::{Cgroups, Version};

/// How long after its notice, in all and from one look to the next, a v1 group may take to
/// count what was killed: before it kills, the kernel lists every process in its log.
const COUNTED_AFTER: (u32, Duration) = (100, Duration::from_millis(10));

/// The files that count what was killed.
pub(super) const V1: &str = "memory.oom_control";
pub(super) const V2: &str = "memory.events";

/// The counter of one container's killed processes.
#[derive(Debug)]
pub(crate) struct Oom {
    directory: PathBuf,
    file: &'static str,
    is_v1: bool,
    seen: AtomicU64,
}

impl Oom {
    /// The counter of these groups, if memory is controlled there.
    pub(crate) fn of(cgroups: &Cgroups) -> Option<Self> {
        let file = cgroups.file("memory", V1, V2)?;
        Some(Self {
            directory: file.directory.to_owned(),
            file: file.name,
            is_v1: matches!(cgroups.version(), Version::V1(_)),
            seen: AtomicU64::new(0),
        })
    }

    /// How many processes have been killed since this was last asked; none once the group is gone.
    pub(crate) fn kills(&self) -> u64 {
        let killed = Table::read(&self.directory, self.file).get("oom_kill");
        let seen = self.seen.fetch_max(killed, Ordering::Relaxed);
        killed.saturating_sub(seen)
    }

    /// Calls `report` with the number of killed processes whenever there are some; ends only with
    /// an error.
    pub(crate) async fn watch(&self, notice: Notice, report: impl Fn(u64)) -> io::Error {
        loop {
            if let Err(error) = notice.next().await {
                return error;
            }
            let mut kills = self.kills();
            for _ in 0..self.looks() {
                if kills > 0 {
                    break;
                }
                tokio::time::sleep(COUNTED_AFTER.1).await;
                kills = self.kills();
            }
            if kills > 0 {
                report(kills);
            }
        }
    }

    /// Asks the kernel for notices.
    pub(crate) fn notice(&self) -> io::Result<Notice> {
        if self.is_v1 {
            Notice::of_oom(&self.directory)
        } else {
            Notice::of_changes(&self.directory.join(self.file))
        }
    }

    /// v1 gives notice before it kills and nothing afterwards, v2 whenever a counter
    /// has changed (`mem_cgroup_oom_notify` and `memcg_memory_event` in the kernel).
    fn looks(&self) -> u32 {
        if self.is_v1 { COUNTED_AFTER.0 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(killed: u64) -> String {
        format!("low 0\nhigh 0\nmax 9\noom 3\noom_kill {killed}\noom_group_kill 0\n")
    }

    fn unified(directory: &tempfile::TempDir, killed: u64) -> Oom {
        std::fs::write(directory.path().join("memory.events"), events(killed)).unwrap();
        Oom::of(&Cgroups::of_one("", directory.path())).unwrap()
    }

    #[test]
    fn each_kill_is_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        let oom = unified(&directory, 2);
        assert_eq!((oom.kills(), oom.kills()), (2, 0));
        std::fs::write(directory.path().join("memory.events"), events(3)).unwrap();
        assert_eq!((oom.kills(), oom.kills()), (1, 0));
        std::fs::remove_file(directory.path().join("memory.events")).unwrap();
        assert_eq!(oom.kills(), 0);
    }

    #[test]
    fn version_1_counts_in_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        std::fs::write(directory.path().join("memory.oom_control"), control).unwrap();
        let oom = Oom::of(&Cgroups::of_one("memory", directory.path())).unwrap();
        assert_eq!(oom.kills(), 1);
    }

    #[test]
    fn a_change_without_a_kill_is_not_reported() {
        let directory = tempfile::tempdir().unwrap();
        let oom = unified(&directory, 0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let notice = oom.notice().unwrap();
            let (sender, mut reports) = tokio::sync::mpsc::unbounded_channel();
            let watching = oom.watch(notice, |kills| sender.send(kills).unwrap());
            let kernel = async {
                let file = directory.path().join("memory.events");
                std::fs::write(&file, events(0).replace("oom 3", "oom 4")).unwrap();
                let nothing = tokio::time::timeout(Duration::from_millis(20), reports.recv());
                nothing.await.unwrap_err();
                std::fs::write(&file, events(2)).unwrap();
                reports.recv().await.unwrap()
            };
            tokio::select! {
                biased;
                error = watching => panic!("{error}"),
                kills = kernel => assert_eq!(kills, 2),
            }
        });
    }
}
