//! The root file system of a container: its mounts, its devices, and the way into it.
//!
//! Each step is what runc does (`libcontainer/rootfs_linux.go` there), with paths that are resolved
//! inside the root by the kernel. `docs/decisions/0014-root-file-system.md` has the reasons.

mod cgroup;
mod copy;
mod devices;
mod enter;
mod filesystem;
pub(super) mod ids;
mod mounts;
pub(crate) mod options;
mod path;
mod seal;
#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use rustix::fs::{AtFlags, CWD, Mode, StatxFlags};

use crate::cgroup::{Cgroups, Hierarchies};
use crate::error::{Context, Error};
use crate::sys::mount::Change;
use mounts::{Entry, Kind};
use options::Flags;

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
    pub(crate) hierarchies: &'a Hierarchies,
    /// It is for a WebAssembly guest, whose image has no devices. It must not see a file system of the
    /// kernel's that is mounted below a volume later: binds are private unless their options say
    /// something else.
    pub(crate) is_guest: bool,
}

/// The root file system of a container, in the steps that make it.
pub(crate) struct Root {
    path: PathBuf,
    no_pivot: bool,
    is_guest: bool,
    in_user_namespace: bool,
    has_cgroup_namespace: bool,
    propagation: Option<Flags>,
    /// The root, opened with the privileges of the node.
    prepared: Option<OwnedFd>,
    entries: Vec<Entry>,
    /// None if the spec brings all of `/dev`.
    devices: Option<Vec<devices::Device>>,
    /// None if the spec has no mount of them.
    cgroups: Option<cgroup::View>,
    label: Option<String>,
    read_only: bool,
    read_only_paths: Vec<String>,
    masked_paths: Vec<String>,
    /// The root as a mount of the container's own.
    mounted: OnceCell<OwnedFd>,
    /// What is read-only in the end.
    later: RefCell<Vec<OwnedFd>>,
}

impl Root {
    /// Reads the spec, and opens what takes the privileges of the node. Launcher process, in the node's
    /// mount namespace, with the bundle as its working directory.
    ///
    /// # Errors
    ///
    /// What the spec says wrongly, or the source that cannot be opened.
    pub(crate) fn prepare(settings: &Settings<'_>) -> Result<Self, Error> {
        let spec = settings.spec;
        let no_section = || Error::invalid("config.json has no linux section");
        let linux = spec.linux().as_ref().ok_or_else(no_section)?;
        let propagation = propagation(linux, settings.no_pivot)?;
        let entry = |mount: &Mount| {
            let place = mount.destination().display();
            Entry::new(mount, settings.is_guest)
                .with_context(|| format!("read the mount of {place}"))
        };
        let mounts = spec.mounts().iter().flatten();
        let mut entries = mounts.map(entry).collect::<Result<Vec<_>, _>>()?;
        open_sources(&mut entries, settings, linux, propagation)?;
        let brings_dev = entries
            .iter()
            .any(|entry| entry.kind == Kind::Bind && entry.is_dev());
        let devices = match brings_dev {
            true => None,
            false => Some(devices::of_spec(
                linux.devices().as_deref().unwrap_or_default(),
            )?),
        };
        let cgroups = match entries.iter().any(|entry| entry.kind == Kind::Cgroup) {
            true => Some(
                cgroup::View::new(settings.cgroups, settings.hierarchies)
                    .context("find the cgroups")?,
            ),
            false => None,
        };
        let label = linux.mount_label().clone();
        Ok(Self {
            path: settings.root.to_owned(),
            no_pivot: settings.no_pivot,
            is_guest: settings.is_guest,
            in_user_namespace: namespace(linux, LinuxNamespaceType::User).is_some(),
            has_cgroup_namespace: namespace(linux, LinuxNamespaceType::Cgroup).is_some(),
            propagation,
            prepared: prepared_root(settings.root, linux, propagation)?,
            entries,
            devices,
            cgroups,
            label: label.filter(|label| !label.is_empty()),
            read_only: spec.root().as_ref().and_then(|root| root.readonly()) == Some(true),
            read_only_paths: linux.readonly_paths().clone().unwrap_or_default(),
            masked_paths: linux.masked_paths().clone().unwrap_or_default(),
            mounted: OnceCell::new(),
            later: RefCell::default(),
        })
    }

    /// Makes the mounts and the devices below the root. The container's first process, in its mount
    /// namespace and with every capability in its user namespace.
    ///
    /// # Errors
    ///
    /// The first mount or device that cannot be made.
    pub(crate) fn mount(&self) -> Result<(), Error> {
        // Modes are what the spec says.
        let umask = rustix::process::umask(Mode::empty());
        let mounted = self.mount_all();
        rustix::process::umask(umask);
        mounted
    }

    fn mount_all(&self) -> Result<(), Error> {
        let mounted = enter::prepare(
            &self.path,
            self.propagation,
            self.is_guest,
            self.prepared.as_ref(),
        )
        .with_context(|| format!("mount the root {}", self.path.display()))?;
        self.mounted
            .set(mounted)
            .map_err(|_| Error::invalid("the root is mounted already"))?;
        for entry in &self.entries {
            mounts::mount(self, entry)?;
        }
        match &self.devices {
            Some(devices) => devices::make(self, devices),
            None => Ok(()),
        }
    }

    /// Changes to the directory of the root, for hooks. The same process, after [`mount`](Self::mount).
    pub(crate) fn change_to(&self) -> io::Result<()> {
        Ok(rustix::process::fchdir(self.file()?)?)
    }

    /// Takes the root as `/`, which is the working directory then. The same process, after the hooks.
    ///
    /// # Errors
    ///
    /// The step that failed; the process must not go on.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let root = self.file().context("find the root")?;
        if self.no_pivot {
            enter::move_over(root, &self.path).context("move the root")?;
        } else {
            enter::pivot(root, self.propagation).context("change the root")?;
        }
        enter::propagate(self.propagation).context("set the propagation of the root")
    }

    /// Makes what the spec says read-only or inaccessible, and connects streams that are `/dev/null` to
    /// the container's. The same process, when nothing is mounted any more.
    ///
    /// # Errors
    ///
    /// The step that failed; the process must not go on.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        if self.devices.is_some() {
            seal::reopen_null().context("reopen /dev/null")?;
        }
        for mount in self.later.borrow().iter() {
            seal::read_only(mount).context("make a mount read-only")?;
        }
        if self.read_only {
            seal::read_only_root().context("make the root read-only")?;
        }
        seal::read_only_paths(&self.read_only_paths)?;
        seal::mask(&self.masked_paths)
    }

    /// The root, as a mount of the container's own.
    fn file(&self) -> io::Result<BorrowedFd<'_>> {
        let mounted = self.mounted.get().map(AsFd::as_fd);
        mounted.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    fn is_in_user_namespace(&self) -> bool {
        self.in_user_namespace
    }

    fn has_cgroup_namespace(&self) -> bool {
        self.has_cgroup_namespace
    }

    fn cgroups(&self) -> Option<&cgroup::View> {
        self.cgroups.as_ref()
    }

    /// A copy of the source of a bind mount, from this mount namespace: what its user namespace has
    /// locked stays so. None if the copy of the launcher is to be used.
    fn open_source(&self, entry: &Entry) -> io::Result<Option<OwnedFd>> {
        if entry.prepared.is_some() && entry.options.map_ids.is_some() {
            return Ok(None);
        }
        match mounts::open_tree(&entry.source, entry.is_recursive()) {
            Err(_) if entry.prepared.is_some() => Ok(None),
            other => other.map(Some),
        }
    }

    fn make_read_only_later(&self, mount: OwnedFd) {
        self.later.borrow_mut().push(mount);
    }
}

fn namespace(linux: &Linux, kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
    let mut all = linux.namespaces().iter().flatten();
    all.find(|namespace| namespace.typ() == kind)
}

/// The propagation of the root.
fn propagation(linux: &Linux, no_pivot: bool) -> Result<Option<Flags>, Error> {
    let Some(wanted) = linux.rootfs_propagation().as_deref() else {
        return Ok(None);
    };
    if wanted.is_empty() {
        return Ok(None);
    }
    let refused = |reason| {
        Err(Error::invalid(format!(
            "config.json: linux.rootfsPropagation: {wanted:?}: {reason}"
        )))
    };
    match options::propagation(wanted) {
        None => refused("no propagation"),
        // What the node unmounts would stay in use for ever.
        Some(flags) if no_pivot && flags & libc::MS_PRIVATE != 0 => {
            refused("not safe without pivot_root")
        }
        flags => Ok(flags),
    }
}

/// A copy of the root for a process that may not reach its path.
fn prepared_root(
    root: &Path,
    linux: &Linux,
    propagation: Option<Flags>,
) -> Result<Option<OwnedFd>, Error> {
    if namespace(linux, LinuxNamespaceType::User).is_none() {
        return Ok(None);
    }
    let open = || -> io::Result<OwnedFd> {
        let tree = mounts::open_tree(root, true)?;
        inherit(&tree, propagation)?;
        Change::propagation(libc::MS_PRIVATE).of(&tree, false)?;
        Ok(tree)
    };
    open().map(Some).context("open the root")
}

/// Opens sources that the first process may not, or whose ids are to be mapped.
fn open_sources(
    entries: &mut [Entry],
    settings: &Settings<'_>,
    linux: &Linux,
    propagation: Option<Flags>,
) -> Result<(), Error> {
    let user = namespace(linux, LinuxNamespaceType::User);
    let all = settings.spec.mounts().iter().flatten().zip(entries);
    for (mount, entry) in all {
        let users = ids::ranges(mount.uid_mappings().as_deref().unwrap_or_default());
        let groups = ids::ranges(mount.gid_mappings().as_deref().unwrap_or_default());
        let has_own = !users.is_empty() || !groups.is_empty();
        if has_own {
            if users.is_empty() || groups.is_empty() {
                return Err(Error::invalid(NEEDS_BOTH));
            }
            entry.options.map_ids.get_or_insert(false);
        }
        let maps_ids = entry.options.map_ids.is_some();
        if entry.kind != Kind::Bind {
            if maps_ids {
                let place = entry.shown.display();
                let what = format!("config.json: {place}: only bind mounts can have mapped ids");
                return Err(Error::invalid(what));
            }
            continue;
        }
        if user.is_none() && !maps_ids {
            continue;
        }
        let cannot = || format!("open the volume {}", entry.source.display());
        let tree = mounts::open_tree(&entry.source, entry.is_recursive());
        let tree = match tree {
            // The first process says that it is missing.
            Err(error) if !maps_ids && error.kind() == io::ErrorKind::NotFound => continue,
            tree => tree.with_context(cannot)?,
        };
        if maps_ids {
            let ids = if has_own {
                shown_ids(&users, &groups)
            } else {
                container_ids(linux, user)
            }?;
            let recursive = entry.options.map_ids == Some(true);
            mounts::map_ids(&tree, &ids, recursive)
                .with_context(|| format!("map the ids of {}", entry.source.display()))?;
        }
        inherit(&tree, propagation).with_context(cannot)?;
        if mount_of(&entry.source)? == mount_of(settings.root)? {
            // The first process changes that mount, so that the root tells the node nothing.
            let parent = enter::of_parent(propagation);
            Change::propagation(parent)
                .of(&tree, false)
                .with_context(cannot)?;
        }
        entry.prepared = Some(tree);
    }
    Ok(())
}

/// The mount that something of the node is in.
fn mount_of(path: &Path) -> Result<u64, Error> {
    let flags = AtFlags::empty();
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID);
    let found = found.with_context(|| format!("look at {}", path.display()))?;
    Ok(found.stx_mnt_id)
}

/// Has a copy of a mount of the node have the propagation that one of the container's namespace has.
fn inherit(tree: &OwnedFd, propagation: Option<Flags>) -> io::Result<()> {
    let flags = propagation.unwrap_or(libc::MS_SLAVE | libc::MS_REC);
    // Others concern the first mount of the node only.
    if flags & libc::MS_REC == 0 {
        return Ok(());
    }
    Change::propagation(flags & !libc::MS_REC).of(tree, true)
}

const NEEDS_BOTH: &str = "config.json: mounts with mapped ids need uidMappings and gidMappings";

fn shown_ids(users: &[ids::Range], groups: &[ids::Range]) -> Result<File, Error> {
    if users.is_empty() || groups.is_empty() {
        return Err(Error::invalid(NEEDS_BOTH));
    }
    ids::namespace(users, groups).context("make a user namespace for mapped ids")
}

/// The ids of the container's own user namespace.
fn container_ids(linux: &Linux, user: Option<&LinuxNamespace>) -> Result<File, Error> {
    match user.and_then(|user| user.path().as_deref()) {
        Some(path) => File::open(path).context("open the user namespace"),
        None => {
            let users = ids::ranges(linux.uid_mappings().as_deref().unwrap_or_default());
            let groups = ids::ranges(linux.gid_mappings().as_deref().unwrap_or_default());
            shown_ids(&users, &groups)
        }
    }
}
