//! The mounts of a spec and their options.

use libc::MS_BIND;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount};

use super::{has_any, refused};
use crate::container::root::options::Options;
use crate::error::Error;
use crate::policy;

/// What is said here about mapped ids is what runc says (`checkIDMapMounts` in its `validator.go`).
pub(super) fn check(mounts: &[Mount], linux: Option<&Linux>) -> Result<(), Error> {
    mounts.iter().try_for_each(|mount| check_one(mount, linux))
}

fn check_one(mount: &Mount, linux: Option<&Linux>) -> Result<(), Error> {
    let (users, groups) = (has_any(mount.uid_mappings()), has_any(mount.gid_mappings()));
    for (field, has, has_other) in [
        ("mounts[].uidMappings", users, groups),
        ("mounts[].gidMappings", groups, users),
    ] {
        if has && !has_other {
            return Err(refused(field, "the other of the two maps is missing"));
        }
        if has && !is_bind(mount) {
            return Err(refused(field, "only bind mounts can have mapped ids"));
        }
    }
    let options = mount.options().iter().flatten().map(String::as_str);
    if Options::parse(options).map_ids.is_none() || users {
        return Ok(());
    }
    let reason = if is_bind(mount) {
        if has_user_namespace(linux) {
            return Ok(());
        }
        "there is neither a map nor a user namespace"
    } else {
        "only bind mounts can have mapped ids"
    };
    let place = mount.destination().display();
    let reason = format!("{place}: \"idmap\": {reason}");
    Err(refused("mounts[].options", reason))
}

fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().iter().flatten().map(String::as_str);
    policy::is_bind(mount) || Options::parse(options).has(MS_BIND)
}

fn has_user_namespace(linux: Option<&Linux>) -> bool {
    let namespaces = linux.iter().flat_map(|linux| linux.namespaces());
    let mut namespaces = namespaces.flatten();
    namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}
