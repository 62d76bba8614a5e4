//! The bundle: the directory that containerd makes for a container, and our files in it.
//!
//! Everything that `delete` needs is in `shimwright/` inside the bundle, so it lives exactly as
//! long as containerd's own record of the container.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::identity::ProcessId;
use super::read_bounded;
use super::record::Record;
use super::spec;
use crate::error::{Context, Error};

/// The largest `config.json` that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Annotations that name a group of containers served by one shim process, in order of rank: the
/// runc shim's own, and the pod's of the CRI plugin.
const GROUP_ANNOTATIONS: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];

/// The directory of one container.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    directory: PathBuf,
}

impl Bundle {
    pub(crate) fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The bundle itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the root file system is mounted if `create` was given mounts for it.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Our own directory in the bundle.
    pub(crate) fn private(&self) -> PathBuf {
        self.directory.join("shimwright")
    }

    /// Reads and parses `config.json`.
    ///
    /// # Errors
    ///
    /// `Invalid`, with the position of the mistake, or the reason why it cannot be read.
    pub(crate) fn spec(&self) -> Result<Spec, Error> {
        let path = self.directory.join("config.json");
        let invalid = |reason: String| Error::invalid(format!("{}: {reason}", path.display()));
        let bytes = read_bounded(&path, MAX_CONFIG).map_err(|error| invalid(error.to_string()))?;
        spec::parse(&bytes).map_err(|error| invalid(error.to_string()))
    }

    /// Reads what an earlier process recorded; `None` if there is no record that can be read.
    pub(crate) fn record(&self) -> Option<Record> {
        Record::parse(&read_bounded(self.private().join("record.json"), MAX_CONFIG).ok()?)
    }

    /// Replaces the record atomically.
    pub(crate) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let path = self.private().join("record.json");
        let text = serde_json::to_vec(record).context("encode the container's record")?;
        write_atomically(&path, &text).with_context(|| format!("write {}", path.display()))
    }

    /// Writes down a logger's process, in a file of its own: several may be started at once.
    pub(crate) fn record_logger(&self, process: ProcessId) -> Result<(), Error> {
        let directory = self.private().join("loggers");
        let path = directory.join(process.pid.to_string());
        let write = || {
            std::fs::create_dir_all(&directory)?;
            write_atomically(&path, &serde_json::to_vec(&process)?)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// The loggers that were started for the container.
    pub(crate) fn loggers(&self) -> Vec<ProcessId> {
        let files = std::fs::read_dir(self.private().join("loggers"));
        files
            .into_iter()
            .flatten()
            .filter_map(|file| read_bounded(file.ok()?.path(), MAX_CONFIG).ok())
            .filter_map(|text| serde_json::from_slice(&text).ok())
            .collect()
    }

    /// Makes our own directory, readable by root only.
    pub(crate) fn make_private(&self) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.private();
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&path)
            .with_context(|| format!("make {}", path.display()))
    }
}

/// The name under which containers share a shim process.
pub(crate) fn group<'a>(annotations: Option<&'a HashMap<String, String>>, id: &'a str) -> &'a str {
    GROUP_ANNOTATIONS
        .iter()
        .find_map(|name| annotations?.get(*name))
        // It becomes part of a path that is hashed, in which `/` would take the namespace's place.
        .map(|group| group.trim_start_matches('/'))
        .filter(|group| !group.is_empty())
        .unwrap_or(id)
}

/// Refuses the id of a container or an exec, as `what` says, that is not a single path component or
/// is longer than containerd allows (`identifiers.Validate`: 76 characters of letters, digits, `_`,
/// `.` and `-`).
pub(crate) fn validate_id(what: &str, id: &str) -> Result<(), Error> {
    let valid = !id.is_empty()
        && id.len() <= 76
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if valid {
        Ok(())
    } else {
        Err(Error::invalid(format!("invalid {what} id {id:?}")))
    }
}

/// Writes a file so that a reader finds the old content or the new, never a part.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    let written = file
        .write_all(content)
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Reads what an earlier process has recorded, and about that process, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some(record) = Record::parse(bytes) {
        let text = serde_json::to_vec(&record).expect("what was read can be written");
        let again = Record::parse(&text).expect("what was written can be read");
        assert_eq!((again.id, again.cgroups), (record.id, record.cgroups));
    }
    // A logger's process is in a file of its own.
    let _ = serde_json::from_slice::<ProcessId>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        super::identity::parse_start_time(text);
        let _ = validate_id("container", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_runcs_then_the_pod_then_the_container() {
        let mut annotations = HashMap::new();
        assert_eq!(group(None, "c"), "c");
        assert_eq!(group(Some(&annotations), "c"), "c");
        annotations.insert("io.kubernetes.cri.sandbox-id".to_owned(), "pod".to_owned());
        assert_eq!(group(Some(&annotations), "c"), "pod");
        annotations.insert("io.containerd.runc.v2.group".to_owned(), "group".to_owned());
        assert_eq!(group(Some(&annotations), "c"), "group");
        annotations.insert(
            "io.containerd.runc.v2.group".to_owned(),
            "//run/s".to_owned(),
        );
        assert_eq!(group(Some(&annotations), "c"), "run/s");
    }

    #[test]
    fn ids_cannot_leave_their_directory() {
        for good in ["a", "redis-1.2_x", "0"] {
            validate_id("container", good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "-a", "a b", &"x".repeat(77)] {
            assert!(validate_id("container", bad).is_err(), "{bad}");
        }
        let error = validate_id("exec", "a/b").unwrap_err();
        assert_eq!(error.to_string(), "invalid exec id \"a/b\"");
    }

    #[test]
    fn a_broken_config_is_named_with_the_place_of_the_mistake() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("config.json"),
            "{\n \"ociVersion\": 1 }",
        )
        .unwrap();
        let error = Bundle::new(directory.path())
            .spec()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("config.json: ") && error.contains("line 2"),
            "{error}"
        );
    }
}
