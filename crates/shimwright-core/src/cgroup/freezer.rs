//! Freezes and thaws all processes of a container.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::file::{Table, write};
use super::notice::Notice;
use super::{Cgroups, Version};

/// The first and the longest pause between two looks at a v1 freezer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The freezer of a container.
#[derive(Debug)]
pub(crate) enum Freezer {
    /// The directory of its group in the v1 hierarchy.
    V1(PathBuf),
    /// The directory of its v2 group.
    V2(PathBuf),
}

impl Freezer {
    /// The freezer of these groups, if they have one.
    pub(crate) fn of(cgroups: &Cgroups) -> Option<Self> {
        match cgroups.version() {
            Version::V1(groups) => Some(Self::V1(groups.directory("freezer")?.into())),
            Version::V2(group) => Some(Self::V2(group.directory().into())),
        }
    }

    /// Freezes every process, and waits until the last one stands still. What could not be frozen
    /// completely is thawed again.
    ///
    /// # Errors
    ///
    /// `TimedOut` if a process does not freeze within `bound`, such as one that waits for a device
    /// without being interruptible.
    pub(crate) async fn freeze(&self, bound: Duration) -> io::Result<()> {
        let frozen = match tokio::time::timeout(bound, self.try_to_freeze()).await {
            Ok(frozen) => frozen,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if frozen.is_err() {
            self.thaw()?;
        }
        frozen
    }

    async fn try_to_freeze(&self) -> io::Result<()> {
        match self {
            Self::V1(directory) => {
                let file = directory.join("freezer.state");
                let mut pause = PAUSES.0;
                loop {
                    // Asking again is what the kernel's document advises for a group that stays at
                    // `FREEZING`, and nothing announces the end (`freezer-subsystem.rst`).
                    write(&file, "FROZEN")?;
                    if std::fs::read_to_string(&file)?.trim() == "FROZEN" {
                        return Ok(());
                    }
                    tokio::time::sleep(pause).await;
                    pause = PAUSES.1.min(pause * 2);
                }
            }
            Self::V2(directory) => {
                // Made before it is asked for, so that no change is missed.
                let notice = Notice::of_changes(&directory.join("cgroup.events"))?;
                write(&directory.join("cgroup.freeze"), "1")?;
                while Table::read(directory, "cgroup.events").get("frozen") != 1 {
                    notice.next().await?;
                }
                Ok(())
            }
        }
    }

    /// Thaws every process. They may run again when this returns.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        match self {
            Self::V1(directory) => write(&directory.join("freezer.state"), "THAWED"),
            Self::V2(directory) => write(&directory.join("cgroup.freeze"), "0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(200);

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    fn content(group: &tempfile::TempDir, file: &str) -> String {
        std::fs::read_to_string(group.path().join(file)).unwrap()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn version_2_is_frozen_once_its_events_say_so() {
        let files = [
            ("cgroup.freeze", "0"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
        ];
        let group = group(&files);
        let freezer = Freezer::V2(group.path().into());
        runtime().block_on(async {
            let freezing = freezer.freeze(Duration::from_secs(30));
            let kernel = async {
                // The other future has asked for it before this one runs.
                assert_eq!(content(&group, "cgroup.freeze"), "1");
                let events = "populated 1\nfrozen 1\n";
                std::fs::write(group.path().join("cgroup.events"), events).unwrap();
            };
            let (frozen, ()) = tokio::join!(freezing, kernel);
            frozen.unwrap();
        });
        assert_eq!(content(&group, "cgroup.freeze"), "1");
        freezer.thaw().unwrap();
        assert_eq!(content(&group, "cgroup.freeze"), "0");
    }

    #[test]
    fn what_does_not_freeze_in_time_is_thawed() {
        let files = [("cgroup.freeze", "0"), ("cgroup.events", "frozen 0\n")];
        let unified = group(&files);
        let freezer = Freezer::V2(unified.path().into());
        let error = runtime().block_on(freezer.freeze(BOUND)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(content(&unified, "cgroup.freeze"), "0");
    }

    #[test]
    fn a_kernel_without_the_files_cannot_freeze() {
        let empty = group(&[]);
        for freezer in [
            Freezer::V2(empty.path().into()),
            Freezer::V1(empty.path().into()),
        ] {
            let error = runtime().block_on(freezer.freeze(BOUND)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none());
    }
}
