//! The section `linux` of a spec.

use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxIntelRdt, LinuxMemory, LinuxNamespace, LinuxNamespaceType,
    LinuxResources,
};

use super::{NO_SELINUX, NOT_DONE, Node, has_any, is_set, refused, twice};
use crate::container::root::options;
use crate::error::Error;

const CGROUP_V2: &str = "cgroup v2 has no such setting";

pub(super) fn check(linux: &Linux, node: Node) -> Result<(), Error> {
    namespaces(linux)?;
    if is_set(linux.mount_label()) && !node.selinux {
        return Err(refused("linux.mountLabel", NO_SELINUX));
    }
    // What an exec runs would not be in the group that limits the container.
    let is_set = |rdt: &LinuxIntelRdt| *rdt != LinuxIntelRdt::default();
    if linux.intel_rdt().as_ref().is_some_and(is_set) {
        return Err(refused("linux.intelRdt", NOT_DONE));
    }
    let personality = linux.personality().as_ref();
    if personality.is_some_and(|personality| has_any(personality.flags())) {
        return Err(refused("linux.personality.flags", NOT_DONE));
    }
    if let Some(wanted) = linux.rootfs_propagation().as_deref()
        && !wanted.is_empty()
        && options::propagation(wanted).is_none()
    {
        let reason = format!("{wanted:?} is no propagation");
        return Err(refused("linux.rootfsPropagation", reason));
    }
    match linux.resources() {
        Some(resources) => check_resources(resources, node),
        None => Ok(()),
    }
}

fn namespaces(linux: &Linux) -> Result<(), Error> {
    const FIELD: &str = "linux.namespaces[].type";
    let all = || linux.namespaces().iter().flatten();
    if let Some(kind) = twice(all().map(|namespace| namespace.typ().to_string())) {
        return Err(refused(FIELD, format!("{kind} is there twice")));
    }
    let is_relative = |path: &Path| !path.is_absolute();
    if all().any(|namespace| namespace.path().as_deref().is_some_and(is_relative)) {
        return Err(refused("linux.namespaces[].path", "not an absolute path"));
    }
    let is_new_user =
        |n: &&LinuxNamespace| n.typ() == LinuxNamespaceType::User && n.path().is_none();
    let maps = has_any(linux.uid_mappings()) && has_any(linux.gid_mappings());
    if all().find(is_new_user).is_some() && !maps {
        return Err(refused(
            FIELD,
            "a new user namespace needs uidMappings and gidMappings",
        ));
    }
    Ok(())
}

fn check_resources(resources: &LinuxResources, node: Node) -> Result<(), Error> {
    if let Some(memory) = resources.memory() {
        check_memory(memory, node)?;
    }
    if let Some(block_io) = resources.block_io() {
        check_block_io(block_io, node)?;
    }
    if let Some(network) = resources.network()
        && !node.cgroup_v1
    {
        if network.class_id().unwrap_or_default() != 0 {
            return Err(refused("linux.resources.network.classID", CGROUP_V2));
        }
        if has_any(network.priorities()) {
            return Err(refused("linux.resources.network.priorities", CGROUP_V2));
        }
    }
    if resources.rdma().as_ref().is_some_and(|all| !all.is_empty()) {
        return Err(refused("linux.resources.rdma", NOT_DONE));
    }
    for file in resources.unified().iter().flat_map(|all| all.keys()) {
        check_unified(file, node)?;
    }
    Ok(())
}

fn check_memory(memory: &LinuxMemory, node: Node) -> Result<(), Error> {
    for (field, limit) in [
        ("linux.resources.memory.kernel", memory.kernel()),
        ("linux.resources.memory.kernelTCP", memory.kernel_tcp()),
    ] {
        // 0 leaves a limit as it is, -1 takes it away.
        if !node.cgroup_v1 && limit.unwrap_or_default() > 0 {
            return Err(refused(field, CGROUP_V2));
        }
    }
    Ok(())
}

fn check_block_io(block_io: &LinuxBlockIo, node: Node) -> Result<(), Error> {
    if block_io.leaf_weight().unwrap_or_default() != 0 {
        return Err(refused("linux.resources.blockIO.leafWeight", NOT_DONE));
    }
    for device in block_io.weight_device().iter().flatten() {
        if device.leaf_weight().unwrap_or_default() != 0 {
            let field = "linux.resources.blockIO.weightDevice[].leafWeight";
            return Err(refused(field, NOT_DONE));
        }
        if node.cgroup_v1 && device.weight().unwrap_or_default() != 0 {
            let field = "linux.resources.blockIO.weightDevice[].weight";
            return Err(refused(field, "not done with cgroup v1"));
        }
    }
    Ok(())
}

/// Names of files are joined to the directory of the cgroup and written to.
fn check_unified(file: &str, node: Node) -> Result<(), Error> {
    const FIELD: &str = "linux.resources.unified";
    if node.cgroup_v1 {
        return Err(refused(FIELD, "this node has cgroup v1"));
    }
    if crate::cgroup::limits::is_unified(file) {
        Ok(())
    } else {
        Err(refused(FIELD, format!("{file:?} is not a limit")))
    }
}
