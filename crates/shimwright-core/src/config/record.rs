//! The record of a container on disk, for the process that cleans up after a dead shim.

use serde::{Deserialize, Serialize};

use super::identity::ProcessId;
use crate::cgroup::Cgroups;

/// Changed whenever a cleaner of another version could misread [`Record`].
const VERSION: u32 = 1;

/// What is known about a container, for a process that cleans up after a dead shim and may be of
/// a newer version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The container's id.
    pub(crate) id: String,
    /// Whether `create` mounted the root file system.
    pub(crate) mounted: bool,
    /// Whether it mounted something below the root file system too.
    #[serde(default)]
    pub(crate) mounted_below: bool,
    /// Whether hooks are to run when the container is gone.
    #[serde(default)]
    pub(crate) poststop: bool,
    /// The container's first process, once it exists.
    pub(crate) init: Option<ProcessId>,
    /// The container's cgroups, once they exist.
    pub(crate) cgroups: Cgroups,
    /// The engine, and what its work has cost, if a guest runs there.
    #[serde(default)]
    pub(crate) engine: Option<(String, EngineMetrics)>,
}

impl Record {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.version == VERSION).then_some(record)
    }

    pub(crate) fn new(id: &str) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            mounted: false,
            mounted_below: false,
            poststop: false,
            init: None,
            cgroups: Cgroups::default(),
            engine: None,
        }
    }
}

/// What it took to get at the code of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineMetrics {
    /// Whether the cache had the native code; nothing if the engine compiles none ahead of time.
    pub(crate) cache_hit: Option<bool>,
    /// How long compiling took, if it was done for this task.
    pub(crate) compile_seconds: Option<f64>,
    /// The size of what the runner loads.
    pub(crate) artifact_bytes: u64,
}

/// What a container was made for; a process that joins it later may be of the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ContainerKind {
    /// Its first process runs WebAssembly, so it has none of the kernel's file systems.
    Wasm,
    /// Its first process is a program of the image.
    Linux,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::bundle::Bundle;

    #[test]
    fn a_record_survives_being_written_and_an_unknown_version_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(directory.path());
        assert!(bundle.record().is_none());
        bundle.make_private().unwrap();
        let mut record = Record::new("a");
        bundle.write_record(&record).unwrap();
        assert_eq!(bundle.record().unwrap().id, "a");
        record.version += 1;
        bundle.write_record(&record).unwrap();
        assert!(bundle.record().is_none());
    }
}
