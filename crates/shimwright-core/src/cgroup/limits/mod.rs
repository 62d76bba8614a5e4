//! Changing the limits of a container that exists: `LinuxResources` as writes to files of its
//! cgroups, all of them or none.
//!
//! What the files mean is in `cgroup-v1/` and `cgroup-v2.rst` of the kernel's documents, what the
//! fields mean in the OCI runtime spec, "Control groups". As with runc, a number that is 0 and a
//! list that is empty leave a limit as it is, and -1 takes it away.

mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use super::file::write;
use super::{Cgroups, Version};
use crate::error::Error;

pub(crate) use v2::is_unified;

/// The processor shares that a kernel with cgroup v1 takes without changing them.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Applies limits to a container's groups.
///
/// Launcher process: a lower limit of memory waits until the kernel has taken back what is above.
///
/// # Errors
///
/// `Invalid` with the name of the file, the value and the kernel's reason. The limits are then as
/// they were; if one could not be restored, the error says so.
pub(crate) fn update(cgroups: &Cgroups, resources: &LinuxResources) -> Result<Applied, Error> {
    if resources.block_io().is_some() || resources.network().is_some() || resources.rdma().is_some()
    {
        tracing::debug!("an update leaves limits of block devices, network and RDMA as they are");
    }
    let plan = match cgroups.version() {
        Version::V1(groups) => v1::plan(groups, resources)?,
        Version::V2(group) => v2::plan(group, resources)?,
    };
    apply(&plan)
}

/// Limits that were changed, with what they were before.
#[derive(Debug)]
#[must_use]
pub(crate) struct Applied(Vec<Write>);

impl Applied {
    /// Takes them back, and adds to what went wrong meanwhile which of them cannot be.
    pub(crate) fn take_back(self, error: Error) -> Error {
        let changed = kept(&restore(self.0));
        match error {
            Error::Invalid { what } => Error::invalid(what + &changed),
            Error::Failed { action, source } => Error::Failed {
                action: action + &changed,
                source,
            },
            other => other,
        }
    }
}

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    file: PathBuf,
    value: String,
}

impl Write {
    fn new(directory: &Path, file: &str, value: impl ToString) -> Self {
        Self {
            file: directory.join(file),
            value: value.to_string(),
        }
    }

    fn name(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

fn apply(plan: &[Write]) -> Result<Applied, Error> {
    let mut before = Vec::new();
    for step in plan {
        let old = std::fs::read_to_string(&step.file);
        let done = old.and_then(|old| {
            write(&step.file, &step.value)?;
            Ok(Write {
                file: step.file.clone(),
                value: old.trim_end().to_owned(),
            })
        });
        match done {
            Ok(old) => before.push(old),
            Err(error) => return Err(refusal(step, error, &restore(before))),
        }
    }
    Ok(Applied(before))
}

/// Takes changes back, the last one first. Returns the names of the files that stay changed.
fn restore(before: Vec<Write>) -> Vec<String> {
    let changed = before.into_iter().rev().filter(|old| {
        // Of a file of several lines, such as `io.max`, one line is written at a time.
        old.value.contains('\n') || write(&old.file, &old.value).is_err()
    });
    changed.map(|old| old.name()).collect()
}

/// Says which files stay changed.
fn kept(changed: &[String]) -> String {
    if changed.is_empty() {
        String::new()
    } else {
        format!(" (and these stay changed: {})", changed.join(", "))
    }
}

fn refusal(step: &Write, error: io::Error, changed: &[String]) -> Error {
    let (name, value) = (step.name(), &step.value);
    let kept = kept(changed);
    // What a value can be blamed for; `cpuset` alone has four reasons.
    let is_values_fault = matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL
                | libc::ERANGE
                | libc::EBUSY
                | libc::EACCES
                | libc::EPERM
                | libc::ENOSPC
                | libc::ENODEV
                | libc::EOPNOTSUPP
        )
    );
    if error.kind() == io::ErrorKind::NotFound {
        return Error::invalid(format!("{name}: the container has no such limit{kept}"));
    }
    if is_values_fault {
        return Error::invalid(format!("{name}: {value:?}: {error}{kept}"));
    }
    Error::Failed {
        action: format!("set {name} to {value:?}{kept}"),
        source: error.into(),
    }
}

/// Refuses a limit below what is used, if the client asked for that check.
fn check_usage(
    directory: &Path,
    usage: &str,
    file: &str,
    memory: &LinuxMemory,
) -> Result<(), Error> {
    let usage = current(directory, usage);
    let limit = set(memory.limit()).and_then(|limit| u64::try_from(limit).ok());
    match limit {
        Some(limit) if memory.check_before_update() == Some(true) && limit < usage => {
            Err(Error::invalid(format!(
                "{file}: \"{limit}\": the container uses {usage} bytes"
            )))
        }
        _ => Ok(()),
    }
}

/// The limit of one size of huge pages, and of their reservation where the kernel has that.
fn huge_pages(
    directory: &Path,
    limit: &LinuxHugepageLimit,
    suffix: &str,
) -> Result<Vec<Write>, Error> {
    let size = limit.page_size();
    if !size.ends_with('B') || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Error::invalid(format!("pageSize: {size:?} is no size")));
    }
    let write = |file: String| Write::new(directory, &file, limit.limit());
    let reserved = write(format!("hugetlb.{size}.rsvd.{suffix}"));
    let mut writes = vec![write(format!("hugetlb.{size}.{suffix}"))];
    writes.extend(Some(reserved).filter(|reserved| reserved.file.exists()));
    Ok(writes)
}

fn shares(cpu: &LinuxCpu) -> Result<Option<u64>, Error> {
    match cpu.shares() {
        None | Some(0) => Ok(None),
        Some(shares) if SHARES.contains(&shares) => Ok(Some(shares)),
        Some(shares) => Err(Error::invalid(format!(
            "cpu.shares: \"{shares}\": not between {} and {}",
            SHARES.start(),
            SHARES.end()
        ))),
    }
}

fn tasks(pids: &LinuxPids) -> Option<String> {
    set(Some(pids.limit())).map(or_max)
}

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|&value| value != 0)
}

/// No limit has a word of its own on v2, and in `pids.max`.
fn or_max(value: i64) -> String {
    match value {
        -1 => "max".to_owned(),
        value => value.to_string(),
    }
}

/// A number as it is now; what is no number is the largest.
fn current(directory: &Path, file: &str) -> u64 {
    let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

/// Adds the limits of a group's processor time that both versions have, the burst by this file.
fn burst_and_idle(plan: &mut Vec<Write>, directory: &Path, file: &str, cpu: &LinuxCpu) {
    if let Some(burst) = cpu.burst() {
        // It may never exceed the quota, so a smaller one comes before a smaller quota.
        let at = if burst < current(directory, file) {
            0
        } else {
            plan.len()
        };
        plan.insert(at, Write::new(directory, file, burst));
    }
    if let Some(idle) = cpu.idle() {
        plan.push(Write::new(directory, "cpu.idle", idle));
    }
}

/// Plans what an update of limits writes, on both versions, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(resources: &LinuxResources) {
    let directory = Path::new("/nowhere");
    let plans = [
        v2::plan(&super::v2::Group(directory.to_owned()), resources),
        v1::plan(&Cgroups::everywhere(directory).v1, resources),
    ];
    for write in plans.into_iter().flatten().flatten() {
        // Only `unified` of the resources names files, and it must not lead out of the group.
        assert_eq!(write.file.parent(), Some(directory), "{write:?}");
        assert!(!write.name().is_empty() && write.name() != "..");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    pub(super) fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    pub(super) fn shown(plan: Result<Vec<Write>, Error>) -> Vec<String> {
        let show = |write: &Write| format!("{}={}", write.name(), write.value);
        plan.unwrap().iter().map(show).collect()
    }

    #[test]
    fn a_failed_update_leaves_the_limits_as_they_were() {
        let group = group(&[("pids.max", "max\n"), ("cpu.max", "max 100000\n")]);
        let cgroups = Cgroups::of_one("", group.path());
        let content = |file| std::fs::read_to_string(group.path().join(file)).unwrap();
        let wanted = r#"{"pids":{"limit":7},"cpu":{"quota":5000},"memory":{"limit":4096}}"#;
        let error = update(&cgroups, &resources(wanted)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "memory.max: the container has no such limit"
        );
        assert_eq!(
            (content("pids.max"), content("cpu.max")),
            ("max".to_owned(), "max 100000".to_owned())
        );
        let applied = update(&cgroups, &resources(r#"{"pids":{"limit":7}}"#)).unwrap();
        assert_eq!(content("pids.max"), "7");
        let error = applied.take_back(Error::invalid("later"));
        assert_eq!(error.to_string(), "later");
        assert_eq!(content("pids.max"), "max");
    }

    #[test]
    fn what_cannot_be_restored_is_reported() {
        let group = group(&[("io.max", "8:0 rbps=1\n8:16 rbps=2\n")]);
        let cgroups = Cgroups::of_one("", group.path());
        let wanted = r#"{"unified":{"io.max":"8:0 rbps=9","memory.high":"1"}}"#;
        let error = update(&cgroups, &resources(wanted))
            .unwrap_err()
            .to_string();
        assert!(error.contains("memory.high") && error.contains("stay changed: io.max"));
    }
}
