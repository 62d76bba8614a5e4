//! Refuses fields of a spec that neither this crate nor libcgroups implements, if ignoring them
//! would leave a container less isolated or less limited.
//!
//! `docs/oci-fields.md` lists every field of the OCI runtime spec and what happens to it. The tests
//! compare it with the types of `oci-spec` and with this module. What runc refuses is refused here
//! (`libcontainer/configs/validate/validator.go` and `utils_linux.go` there).

mod linux;
mod mounts;
#[cfg(test)]
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use libcontainer::validator::Validator;
use oci_spec::runtime::{
    Hook, LinuxSchedulerPolicy, LinuxSeccompAction, PosixRlimitType, Process, Scheduler, Spec,
};

use crate::error::Error;

/// What the kernel of this node can do for a container.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Node {
    /// SELinux is enabled.
    selinux: bool,
    /// AppArmor is enabled.
    apparmor: bool,
    /// Resources are controlled by v1 hierarchies.
    cgroup_v1: bool,
}

impl Node {
    pub(crate) fn discover(cgroup_v1: bool) -> Self {
        Self {
            selinux: selinux_is_enabled(),
            // No such file: the kernel was built without it.
            apparmor: libcontainer::apparmor::is_enabled().unwrap_or(false),
            cgroup_v1,
        }
    }
}

/// Whether labels of SELinux mean anything to this kernel: its file system exists only then.
pub(crate) fn selinux_is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Refuses a spec that asks for something that nothing would do.
///
/// # Errors
///
/// `Invalid` with the name of the field and the reason.
pub(crate) fn check(spec: &Spec, node: Node) -> Result<(), Error> {
    // The builder of libcontainer asks for the same.
    if !spec.version().starts_with("1.") {
        return Err(refused(
            "ociVersion",
            format!("{:?} is not a version 1", spec.version()),
        ));
    }
    other_systems(spec)?;
    if let Some(process) = spec.process() {
        check_process(process, node)?;
    }
    if let Some(hooks) = spec.hooks() {
        for (name, hooks) in [
            ("hooks.prestart", hooks.prestart()),
            ("hooks.createRuntime", hooks.create_runtime()),
            ("hooks.createContainer", hooks.create_container()),
            ("hooks.startContainer", hooks.start_container()),
            ("hooks.poststart", hooks.poststart()),
            ("hooks.poststop", hooks.poststop()),
        ] {
            check_hooks(name, hooks.as_deref().unwrap_or_default())?;
        }
    }
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    mounts::check(mounts, spec.linux().as_ref())?;
    if let Some(linux) = spec.linux() {
        linux::check(linux, node)?;
    }
    // What belongs to namespaces that the container does not have: names, maps, offsets and sysctls.
    // libcontainer asks too, but only when a part of the sandbox is there already.
    let checked = Validator::validate_spec(spec);
    checked.map_err(|error| Error::invalid(format!("config.json: {error}")))
}

/// The same for a further process of a container.
///
/// # Errors
///
/// `Invalid` with the name of the field and the reason.
pub(crate) fn check_exec(process: &Process, container: &Spec, node: Node) -> Result<(), Error> {
    check_process(process, node)?;
    let seccomp = container.linux().as_ref().and_then(|l| l.seccomp().clone());
    let rules = seccomp.iter().flat_map(|seccomp| seccomp.syscalls());
    if rules
        .flatten()
        .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
    {
        return Err(refused(
            "linux.seccomp",
            "the filter of the container asks a listener, which has no part in an exec",
        ));
    }
    Ok(())
}

/// Decides what a spec leaves open, or what would depend on how the shim itself was started.
pub(crate) fn complete(spec: &mut Spec) {
    if let Some(mut process) = spec.process().clone() {
        complete_process(&mut process);
        spec.set_process(Some(process));
    }
}

/// The same for a further process.
pub(crate) fn complete_process(process: &mut Process) {
    if process.user().umask().is_none() {
        let mut user = process.user().clone();
        user.set_umask(Some(UMASK));
        process.set_user(user);
    }
}

/// What runc sets for a process whose spec has none, whatever the daemon's is.
const UMASK: u32 = 0o022;

fn check_process(process: &Process, node: Node) -> Result<(), Error> {
    if !process.cwd().is_absolute() {
        return Err(refused("process.cwd", "not an absolute path"));
    }
    for (field, texts) in [
        ("process.args", process.args()),
        ("process.env", process.env()),
    ] {
        // execve(2) would end it there, and a guest would get what no program can get.
        if texts.iter().flatten().any(|text| text.contains('\0')) {
            return Err(refused(field, "an entry holds a NUL"));
        }
    }
    for (field, value) in [
        ("process.commandLine", process.command_line()),
        ("process.user.username", process.user().username()),
    ] {
        if is_set(value) {
            return Err(refused(field, "only Windows has it"));
        }
    }
    if is_set(process.selinux_label()) && !node.selinux {
        return Err(refused("process.selinuxLabel", NO_SELINUX));
    }
    if is_set(process.apparmor_profile()) && !node.apparmor {
        return Err(refused(
            "process.apparmorProfile",
            "AppArmor is not enabled on this node",
        ));
    }
    if let Some(cpus) = process.exec_cpu_affinity() {
        for (field, cpus) in [
            ("process.execCPUAffinity.initial", cpus.initial()),
            ("process.execCPUAffinity.final", cpus.cpu_affinity_final()),
        ] {
            if is_set(cpus) {
                return Err(refused(field, NOT_DONE));
            }
        }
    }
    check_rlimits(process)?;
    if let Some(scheduler) = process.scheduler() {
        check_scheduler(scheduler)?;
    }
    match process.io_priority() {
        Some(priority) if !(0..=7).contains(&priority.priority()) => {
            Err(refused("process.ioPriority.priority", "not from 0 to 7"))
        }
        _ => Ok(()),
    }
}

/// The OCI runtime spec, "Rlimits": "the runtime MUST generate an error" if a type is there twice.
fn check_rlimits(process: &Process) -> Result<(), Error> {
    let mut seen: Vec<PosixRlimitType> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            let what = format!("{} is there twice", limit.typ());
            return Err(refused("process.rlimits[].type", what));
        }
        seen.push(limit.typ());
    }
    Ok(())
}

/// What `sched_setattr(2)` would take and not do.
fn check_scheduler(scheduler: &Scheduler) -> Result<(), Error> {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let policy = *scheduler.policy();
    let is_set = |value: Option<u64>| value.unwrap_or_default() != 0;
    let nice = scheduler.nice().unwrap_or_default();
    if matches!(policy, SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(refused("process.scheduler.nice", "not from -20 to 19"));
    }
    let priority = scheduler.priority().unwrap_or_default();
    if !matches!(policy, SchedFifo | SchedRr) && priority != 0 {
        return Err(refused(
            "process.scheduler.priority",
            "only SCHED_FIFO and SCHED_RR have it",
        ));
    }
    for (field, value) in [
        ("process.scheduler.runtime", *scheduler.runtime()),
        ("process.scheduler.deadline", *scheduler.deadline()),
        ("process.scheduler.period", *scheduler.period()),
    ] {
        if policy != SchedDeadline && is_set(value) {
            return Err(refused(field, "only SCHED_DEADLINE has it"));
        }
    }
    Ok(())
}

/// The OCI runtime spec, "POSIX-platform Hooks": a timeout "MUST be greater than zero".
fn check_hooks(name: &str, hooks: &[Hook]) -> Result<(), Error> {
    if hooks
        .iter()
        .any(|hook| hook.timeout().is_some_and(|t| t <= 0))
    {
        return Err(refused(&format!("{name}[].timeout"), "not above zero"));
    }
    Ok(())
}

/// Sections about other systems, and maps of ids where the OCI runtime spec has none.
fn other_systems(spec: &Spec) -> Result<(), Error> {
    for (field, is_there) in [
        ("solaris", spec.solaris().is_some()),
        ("vm", spec.vm().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ] {
        if is_there {
            return Err(refused(field, "this is a runtime for Linux"));
        }
    }
    for (field, map) in [
        ("uidMappings", spec.uid_mappings()),
        ("gidMappings", spec.gid_mappings()),
    ] {
        if has_any(map) {
            return Err(refused(field, "it belongs into the section linux"));
        }
    }
    Ok(())
}

const NOT_DONE: &str = "this runtime does not do that";
const NO_SELINUX: &str = "SELinux is not enabled on this node";

fn refused(field: &str, reason: impl AsRef<str>) -> Error {
    Error::invalid(format!("{field}: {}", reason.as_ref()))
}

/// An empty text says no more than none.
fn is_set(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn has_any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// The first value that is there twice.
fn twice<T: Ord>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Some(value);
        }
        seen.insert(value);
    }
    None
}

/// Checks a spec, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(spec: &Spec) {
    for cgroup_v1 in [false, true] {
        let node = Node {
            cgroup_v1,
            ..Node::default()
        };
        let process = spec.process().clone().unwrap_or_default();
        let label = is_set(process.selinux_label());
        assert!(!label || check(spec, node).is_err());
        assert!(!label || check_exec(&process, spec, node).is_err());
    }
}
