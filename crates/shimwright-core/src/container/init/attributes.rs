//! Attributes of a process that are neither its identity nor its root.

use std::io;
use std::os::fd::OwnedFd;

use libcontainer::process::memory_policy::setup_memory_policy;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    PosixRlimitType, Process, Scheduler,
};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, Resource, Rlimit};

use crate::error::{Context, Error};
use crate::sys;

/// Sets those that no privilege is needed for later.
pub(super) fn set(process: &Process, linux: Option<&Linux>) -> Result<(), Error> {
    if let Some(umask) = process.user().umask() {
        rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
    }
    if let Some(scheduler) = process.scheduler() {
        schedule(scheduler).context("set the scheduler")?;
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        sys::process::set_io_priority(class, priority.priority())
            .context("set the priority of input and output")?;
    }
    let personality = linux.and_then(|linux| linux.personality().as_ref());
    if personality.is_some_and(|p| p.domain() == LinuxPersonalityDomain::PerLinux32) {
        sys::process::set_32_bit_personality().context("set the personality")?;
    }
    Ok(())
}

fn schedule(scheduler: &Scheduler) -> io::Result<()> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let bit = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let flags = scheduler.flags().iter().flatten().map(bit);
    sys::process::schedule(&sys::process::Schedule {
        policy,
        flags: flags.fold(0, |all, one| all | one),
        nice: scheduler.nice().unwrap_or_default(),
        priority: scheduler
            .priority()
            .unwrap_or_default()
            .try_into()
            .unwrap_or_default(),
        runtime: scheduler.runtime().unwrap_or_default(),
        deadline: scheduler.deadline().unwrap_or_default(),
        period: scheduler.period().unwrap_or_default(),
    })
}

/// Has the program that the calling process executes run under its SELinux label and its AppArmor
/// profile. A node without these has refused them before.
///
/// There is no test of it in CI, as no machine of the project has one of them enabled.
pub(super) fn labels(process: &Process, proc: &OwnedFd) -> Result<(), Error> {
    if let Some(label) = given(process.selinux_label()) {
        write_below(proc, "thread-self/attr/exec", label).context("set the SELinux label")?;
    }
    let Some(profile) = given(process.apparmor_profile()) else {
        return Ok(());
    };
    let order = format!("exec {profile}");
    // A directory of its own is there since Linux 5.8.
    let set = match write_below(proc, "thread-self/attr/apparmor/exec", &order) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_below(proc, "thread-self/attr/exec", &order)
        }
        other => other,
    };
    set.with_context(|| format!("set the AppArmor profile {profile}"))
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Writes the kernel's parameters of the namespaces of the calling process.
pub(super) fn sysctls(linux: Option<&Linux>, proc: &OwnedFd) -> Result<(), Error> {
    let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
    for (name, value) in sysctls.into_iter().flatten() {
        write_below(proc, &format!("sys/{}", path(name)), value)
            .map_err(|error| Error::invalid(format!("linux.sysctl: {name}: {value:?}: {error}")))?;
    }
    Ok(())
}

/// The path of a parameter below `/proc/sys`. Either separator may be used, as the first one tells
/// (`sysctl.d(5)`): a name with a dot of its own, such as that of a network device, is written with `/`.
fn path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name.to_owned(),
        _ => {
            let swap = |c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            };
            name.chars().map(swap).collect()
        }
    }
}

/// Writes to a file below a directory, at once.
fn write_below(directory: &OwnedFd, path: &str, text: &str) -> io::Result<()> {
    let file = rustix::fs::openat2(
        directory,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

/// Sets where the memory of the process comes from.
pub(super) fn memory_policy(linux: &Linux) -> Result<(), Error> {
    if linux.memory_policy().is_none() {
        return Ok(());
    }
    let syscall = SyscallType::Linux.create_syscall();
    setup_memory_policy(linux.memory_policy(), syscall.as_ref()).context("set the memory policy")
}

/// Sets the limits of a process, or of the calling one.
pub(super) fn limit(pid: Option<Pid>, process: &Process) -> Result<(), Error> {
    for limit in process.rlimits().iter().flatten() {
        let value = |value: u64| Some(value).filter(|&value| value != u64::MAX);
        let wanted = Rlimit {
            current: value(limit.soft()),
            maximum: value(limit.hard()),
        };
        rustix::process::prlimit(pid, resource(limit.typ()), wanted).map_err(|error| {
            let kind = limit.typ();
            Error::invalid(format!("process.rlimits: {kind}: {error}"))
        })?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_may_be_written_with_either_separator() {
        for (name, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            ("kernel", "kernel"),
        ] {
            assert_eq!(path(name), expected);
        }
    }

    #[test]
    fn nothing_outside_of_a_directory_is_written() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("outside"), "old").unwrap();
        let inside = directory.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("../outside", inside.join("link")).unwrap();
        std::fs::write(inside.join("file"), "old").unwrap();
        let opened: OwnedFd = std::fs::File::open(&inside).unwrap().into();
        write_below(&opened, "file", "new").unwrap();
        for path in ["../outside", "link", "/etc/hostname"] {
            write_below(&opened, path, "new").unwrap_err();
        }
        let outside = std::fs::read_to_string(directory.path().join("outside"));
        assert_eq!(outside.unwrap(), "old");
    }
}
