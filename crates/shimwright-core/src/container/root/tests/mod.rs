//! Root file systems that are made for real, each by a process with a mount namespace of its own.
//!
//! Whoever is not root gets a user namespace too, so that anybody can run these.

mod devices;
mod hostile;
mod mounts;
mod propagation;
mod seal;

use std::fs;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

use super::{Root, Settings};
use crate::cgroup::{Cgroups, Hierarchies};
use crate::error::{Error, chain};
use crate::sys;
use crate::sys::process::Forked;

/// Runs `work` in a forked process with a mount namespace of its own, in which nothing is shared with
/// the node, and fails if it fails.
pub(super) fn apart(work: impl FnOnce()) {
    let is_root = rustix::process::geteuid().is_root();
    contained(!is_root, work);
}

/// Likewise, always with a user namespace.
fn in_user_namespace(work: impl FnOnce()) {
    contained(true, work);
}

fn contained(user_namespace: bool, work: impl FnOnce()) {
    let (mut said, says) = std::io::pipe().unwrap();
    let Forked::Parent(child) = sys::process::fork().unwrap() else {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            enter_namespaces(user_namespace);
            work();
        }));
        if let Err(reason) = outcome {
            let text = reason.downcast_ref::<String>().cloned();
            let text = text.or_else(|| reason.downcast_ref::<&str>().map(|&text| text.into()));
            let text = text.unwrap_or_else(|| "it failed".to_owned());
            std::io::Write::write_all(&mut &says, text.as_bytes()).unwrap();
        }
        sys::process::exit_now(0)
    };
    drop(says);
    let reason = std::io::read_to_string(&mut said).unwrap();
    let (_, status) = rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert!(reason.is_empty(), "{reason}");
    assert_eq!(status.exit_status(), Some(0));
}

fn enter_namespaces(user_namespace: bool) {
    if user_namespace {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        sys::process::unshare(UnshareFlags::NEWUSER).unwrap();
        fs::write("/proc/self/setgroups", "deny").unwrap();
        let map = |id| format!("0 {id} 1");
        fs::write("/proc/self/uid_map", map(user.as_raw())).unwrap();
        fs::write("/proc/self/gid_map", map(group.as_raw())).unwrap();
    }
    sys::process::unshare(UnshareFlags::NEWNS).unwrap();
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .unwrap();
}

/// A root on the node, and something outside of it that nobody may touch.
pub(super) struct Bundle {
    directory: tempfile::TempDir,
    /// The node's `/proc`, which the container's process may look at later.
    proc: OwnedFd,
}

impl Bundle {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("rootfs")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).unwrap();
        Self { directory, proc }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    /// A directory of the node that no container is to see or change.
    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn outside_is_untouched(&self) {
        assert_eq!(fs::read_dir(self.outside()).unwrap().count(), 0);
    }

    /// A directory of the node, with a file in it.
    pub(super) fn volume(&self, name: &str) -> PathBuf {
        let volume = self.directory.path().join(name);
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("file"), name).unwrap();
        volume
    }

    pub(super) fn prepare(&self, spec: &Value) -> Result<Root, Error> {
        self.prepare_as(spec, false, false)
    }

    fn prepare_as(&self, spec: &Value, is_guest: bool, no_pivot: bool) -> Result<Root, Error> {
        let mut spec = spec.clone();
        spec["ociVersion"] = json!("1.0.2");
        if spec["linux"].is_null() {
            spec["linux"] = json!({});
        }
        let root = fs::canonicalize(self.root()).unwrap();
        Root::prepare(&Settings {
            spec: &serde_json::from_value(spec).unwrap(),
            root: &root,
            no_pivot,
            cgroups: &Cgroups::default(),
            hierarchies: &Hierarchies::default(),
            is_guest,
        })
    }

    /// Makes the root of a spec.
    fn mount(&self, spec: &Value) -> Result<Root, Error> {
        let root = self.prepare(spec)?;
        root.mount()?;
        Ok(root)
    }

    /// Makes the root of a spec and enters it.
    fn enter(&self, spec: &Value) -> Root {
        let root = self
            .mount(spec)
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        root.enter()
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        root
    }

    /// Why the root of a spec cannot be made.
    fn refused(&self, spec: &Value) -> String {
        match self.mount(spec) {
            Ok(_) => panic!("{spec} is done"),
            Err(error) => chain(&error),
        }
    }

    /// The line of the mount table for a mount point, as this process sees it.
    fn line(&self, point: &str) -> String {
        let table = rustix::fs::openat(&self.proc, "self/mountinfo", OFlags::RDONLY, Mode::empty());
        let table = std::io::read_to_string(fs::File::from(table.unwrap())).unwrap();
        let is_it = |line: &&str| line.split(' ').nth(4) == Some(point);
        let line = table.lines().rfind(is_it);
        line.unwrap_or_else(|| panic!("nothing on {point}:\n{table}"))
            .to_owned()
    }

    /// The flags of a mount, and what it says about its propagation.
    fn flags(&self, point: &str) -> (String, String) {
        let line = self.line(point);
        let (before, _) = line.split_once(" - ").unwrap();
        let mut fields = before.split(' ').skip(5);
        let flags = fields.next().unwrap().to_owned();
        let propagation = fields.map(|field| field.split(':').next().unwrap());
        (flags, propagation.collect::<Vec<_>>().join(" "))
    }
}

/// Mounts a file system in memory on a directory of the node.
fn tmpfs(point: &Path, flags: rustix::mount::MountFlags) {
    rustix::mount::mount("node", point, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
}

fn is_mounted(path: &Path) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    let found = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap();
    found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}
