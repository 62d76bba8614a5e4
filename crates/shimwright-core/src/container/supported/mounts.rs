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
    match reason_against(&Options::parse(options), is_bind(mount), users, linux) {
        Some(reason) => {
            let place = mount.destination().display();
            Err(refused("mounts[].options", format!("{place}: {reason}")))
        }
        None => Ok(()),
    }
}

/// Why the options of a mount cannot be kept (`checkBindOptions` of runc, too).
fn reason_against(
    options: &Options,
    is_bind: bool,
    has_maps: bool,
    linux: Option<&Linux>,
) -> Option<&'static str> {
    if is_bind && options.has_data() {
        return Some("a bind mount has no options of a file system");
    }
    if options.map_ids.is_none() || has_maps {
        return None;
    }
    if !is_bind {
        return Some("only bind mounts can have mapped ids");
    }
    (!has_user_namespace(linux))
        .then_some("ids to map: there is neither a map nor a user namespace")
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
