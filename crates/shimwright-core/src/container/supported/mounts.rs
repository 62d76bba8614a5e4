//! The mounts of a spec and their options.

use std::path::{Component, Path};
use std::str::FromStr;

use libcontainer::syscall::linux::{MountOption, MountRecursive};
use oci_spec::runtime::{Mount, Spec};

use super::{has_any, refused};
use crate::error::Error;
use crate::policy;

const OPTIONS: &str = "mounts[].options";

pub(super) fn check(mounts: &[Mount]) -> Result<(), Error> {
    mounts.iter().try_for_each(check_one)
}

fn check_one(mount: &Mount) -> Result<(), Error> {
    for (field, map) in [
        ("mounts[].uidMappings", mount.uid_mappings()),
        ("mounts[].gidMappings", mount.gid_mappings()),
    ] {
        if has_any(map) {
            return Err(refused(field, "mounts with mapped ids are not done"));
        }
    }
    let options = mount.options().as_deref().unwrap_or_default();
    let is_bind = policy::is_bind(mount);
    let is_dev = is_dev(mount.destination());
    for option in options {
        if let Some(reason) = reason_against(option, is_bind, is_dev) {
            let place = mount.destination().display();
            return Err(refused(OPTIONS, format!("{place}: {option:?}: {reason}")));
        }
    }
    Ok(())
}

/// Why an option cannot be kept; none if libcontainer or the kernel does what it says, or says
/// itself that it does not.
fn reason_against(option: &str, is_bind: bool, is_dev: bool) -> Option<&'static str> {
    match option {
        "idmap" | "ridmap" => Some("mounts with mapped ids are not done"),
        "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable" => {
            Some("only private propagation is done")
        }
        // libcontainer reads them and passes them to no call.
        "dirsync" | "mand" | "remount" | "sync" => Some("this runtime does not do that"),
        // libcontainer leaves it out here: it makes files there afterwards.
        "ro" | "rro" if is_dev => Some("/dev is never read-only"),
        // Anything else is data for the file system, and a bind mount passes none on.
        _ if is_bind && !is_flag(option) => Some("not an option of a bind mount"),
        _ => None,
    }
}

fn is_flag(option: &str) -> bool {
    MountOption::from_str(option).is_ok() || MountRecursive::from_str(option).is_ok()
}

fn is_dev(destination: &Path) -> bool {
    let mut parts = destination.components();
    let parts = parts.by_ref().filter(|part| *part != Component::RootDir);
    parts.eq(Path::new("dev").components())
}

/// Makes the mounts of a container private, as their options say: libcontainer passes these on to
/// no call, so a volume would stay a slave of the node's mount, and show what is mounted below it on
/// the node later.
///
/// Without `pivot_root(2)` the node's mounts stay below the container's root, and must be told when
/// the node unmounts one of them. runc refuses to make them private then.
pub(super) fn keep_private(spec: &mut Spec, no_pivot: bool) {
    let Some(mut linux) = spec.linux().clone() else {
        return;
    };
    let propagation = (!no_pivot).then(|| "private".to_owned());
    linux.set_rootfs_propagation(propagation);
    spec.set_linux(Some(linux));
}
