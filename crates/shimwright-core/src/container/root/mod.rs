//! The root file system of a container: its mounts, its devices, and the way into it.
//!
//! Each step is what runc does (`libcontainer/rootfs_linux.go` there), with paths that are resolved
//! inside the root by the kernel. `docs/decisions/0014-root-file-system.md` has the reasons.

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::cgroup::Cgroups;
use crate::error::Error;

/// What a root file system is made from.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) spec: &'a Spec,
    /// The root on the node: absolute, without links.
    pub(crate) root: &'a Path,
    /// Move the root over the node's instead of `pivot_root(2)`.
    pub(crate) no_pivot: bool,
    /// The container's own cgroups.
    pub(crate) cgroups: &'a Cgroups,
    /// It is for a WebAssembly guest.
    pub(crate) is_guest: bool,
}

/// The root file system of a container, in the steps that make it.
pub(crate) struct Root {}

#[expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "not written yet"
)]
impl Root {
    /// Opens what takes the privileges of the node. Launcher process, in the node's mount namespace.
    pub(crate) fn prepare(_settings: &Settings<'_>) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// Makes the mounts and the devices below the root. The container's first process, in its mount
    /// namespace and with every capability in its user namespace; hooks come after it.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Takes the root as `/`. The same process.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Makes what the spec says read-only or inaccessible. The same process, when nothing is mounted
    /// any more.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        Ok(())
    }
}
