//! The devices that the processes of a container may open and create.
//!
//! cgroup v1 enforces the rules with the `devices` controller (`cgroup-v1/devices.rst`). cgroup v2
//! has no such controller: a BPF program is attached to the container's cgroup (`cgroup-v2.rst`,
//! "Device controller"). If neither is possible, the create fails.

mod access;
mod program;
mod rules;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

#[cfg(any(fuzzing, test))]
use oci_spec::runtime::Spec;

use super::Cgroups;
use super::file::open_to_write;
use crate::error::{Context, Error};
use crate::sys;

pub(crate) use rules::{Rules, nodes};

/// Has a container's groups keep to these rules, whatever they kept to before.
///
/// # Errors
///
/// If they cannot, or are not the container's alone.
pub(crate) fn enforce(cgroups: &Cgroups, rules: &Rules) -> Result<(), Error> {
    if let Some(directory) = cgroups.controller("devices") {
        return legacy(directory, rules).with_context(|| refusal(directory));
    }
    match &cgroups.v2 {
        Some(group) => {
            let directory = group.directory();
            attach(directory, rules).with_context(|| refusal(directory))
        }
        None => Err(Error::Failed {
            action: "limit the container's devices".to_owned(),
            source: "it has neither a group of the devices controller of cgroup v1 nor one of \
                cgroup v2 of its own"
                .into(),
        }),
    }
}

fn refusal(directory: &Path) -> String {
    format!("limit the container's devices in {}", directory.display())
}

/// Has a container that runs keep to other rules. At each moment it keeps to the old or to the new
/// ones, or to both; what it has open stays open.
///
/// # Errors
///
/// If it cannot; it then keeps to the old rules, if need be to the new ones besides.
pub(crate) fn replace(cgroups: &Cgroups, rules: &Rules) -> Result<(), Error> {
    let Some(directory) = cgroups.controller("devices") else {
        return enforce(cgroups, rules);
    };
    if rules.opens_for_a_moment() {
        return Err(Error::invalid(
            "resources.devices: a container cannot come to all devices but some, as cgroup v1 \
             allows all of them first",
        ));
    }
    let before = read(directory).with_context(|| refusal(directory))?;
    let Err(error) = legacy(directory, rules) else {
        return Ok(());
    };
    let restored = if before.allows_by_default() {
        Err("devices.list does not show what they were".into())
    } else {
        legacy(directory, &before).map_err(|error| error.to_string())
    };
    let stay = restored.err().map(|reason: String| {
        format!(" (and its rules stay changed, as they cannot be restored: {reason})")
    });
    let action = refusal(directory) + &stay.unwrap_or_default();
    Err(error).context(action)
}

fn read(directory: &Path) -> io::Result<Rules> {
    let list = std::fs::read_to_string(directory.join("devices.list"))?;
    Rules::parse(&list).map_err(io::Error::other)
}

/// cgroup v1.
fn legacy(directory: &Path, rules: &Rules) -> io::Result<()> {
    let lines = read(directory)?.lines_to(rules);
    if lines.is_empty() {
        return Ok(());
    }
    let mut files =
        ["devices.deny", "devices.allow"].map(|name| (name, open_to_write(&directory.join(name))));
    for line in lines {
        let (name, file) = &mut files[usize::from(line.allow)];
        let written = match file {
            Ok(file) => file.write_all(line.text.as_bytes()),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        written.map_err(|error| {
            io::Error::new(error.kind(), format!("{name}: {:?}: {error}", line.text))
        })?;
    }
    // What is denied in a group that allows the rest is not shown.
    let now = read(directory)?;
    let is_kept = if rules.allows_by_default() {
        now.allows_by_default()
    } else {
        now == *rules
    };
    if is_kept {
        return Ok(());
    }
    Err(io::Error::other("devices.list shows other rules"))
}

/// cgroup v2. Programs that others have attached stay: each has to allow a device.
fn attach(directory: &Path, rules: &Rules) -> io::Result<()> {
    let cgroup = File::open(directory)?;
    let refused = |step: &str, error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("the kernel does not {step} a device program: {error}"),
        )
    };
    let before = sys::bpf::device_programs(&cgroup).map_err(|error| refused("name", error))?;
    let program = sys::bpf::load_device_program(&program::generate(rules))
        .map_err(|error| refused("load", error))?;
    sys::bpf::attach_device_program(&cgroup, &program).map_err(|error| refused("attach", error))?;
    // Until here both are in force.
    for old in before {
        if let Err(error) = sys::bpf::detach_device_program(&cgroup, &old) {
            let _ = sys::bpf::detach_device_program(&cgroup, &program);
            return Err(refused("detach", error));
        }
    }
    Ok(())
}

/// Applies device rules, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(list: &[oci_spec::runtime::LinuxDeviceCgroup], spec: &Spec) {
    let Ok(rules) = Rules::new(list, nodes(spec)) else {
        return;
    };
    program::fuzz(&rules);
    // What is written is shown again.
    if !rules.allows_by_default() {
        let lines = Rules::default().lines_to(&rules);
        let shown: Vec<_> = lines.into_iter().map(|line| line.text).collect();
        assert_eq!(Rules::parse(&shown.join("\n")).as_ref(), Ok(&rules));
    }
}
