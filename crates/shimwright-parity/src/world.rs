//! What the runs of all cases share: a mount namespace, a directory in memory, the programs.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{self, MountFlags, MountPropagationFlags};
use shimwright_testkit::Result;

/// The directory of libraries that Debian's programs are linked to.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Where and with what cases run.
#[derive(Debug)]
pub struct World {
    directory: PathBuf,
    /// The shim under test.
    pub shim: PathBuf,
    /// runc.
    pub runc: PathBuf,
    /// Whether the limits of containers are those of cgroup v1.
    pub is_v1: bool,
}

/// The programs of a run.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// The shim under test.
    pub shim: &'a Path,
    /// A directory with runc and the libraries it needs, as packages lay them out.
    pub runc: &'a Path,
    /// The program inside.
    pub probe: &'a Path,
    /// A busybox that needs no libraries.
    pub busybox: &'a Path,
}

impl World {
    /// Enters a mount namespace of its own, in which all mounts are shared as on a node with
    /// systemd, and runc's libraries are there. The process may have one thread only.
    ///
    /// # Errors
    ///
    /// If that needs root or a file is missing.
    pub fn enter(programs: Programs<'_>) -> Result<Self> {
        // Before the libraries of this machine are hidden.
        let shim = programs.shim.canonicalize()?;
        let unpacked = programs.runc.canonicalize()?;
        let places = ["usr/sbin/runc", "usr/bin/runc"].map(|place| unpacked.join(place));
        let found = places.into_iter().find(|place| place.is_file());
        let runc = found.ok_or_else(|| format!("there is no runc in {}", unpacked.display()))?;
        enter_namespace(&unpacked)?;
        let directory = PathBuf::from(format!("/dev/shm/shimwright-parity-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        mount::mount("tmpfs", &directory, "tmpfs", MountFlags::empty(), None)?;
        mount::mount_change(&directory, MountPropagationFlags::SHARED)?;
        fs::copy(programs.probe, directory.join("probe"))?;
        fs::copy(programs.busybox, directory.join("busybox"))?;
        Ok(Self {
            directory,
            shim,
            runc,
            is_v1: !Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        })
    }

    /// The program inside, in the file system in which roots are made.
    pub fn probe(&self) -> PathBuf {
        self.directory.join("probe")
    }

    /// A static busybox there.
    pub fn busybox(&self) -> PathBuf {
        self.directory.join("busybox")
    }

    /// An empty directory with this name.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        let place = self.directory.join(name);
        fs::create_dir(&place)?;
        Ok(place)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = mount::unmount(&self.directory, mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.directory);
    }
}

fn enter_namespace(unpacked: &Path) -> Result<()> {
    #[expect(deprecated, reason = "the flag concerns no descriptors")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    let all = |propagation| mount::mount_change("/", propagation | MountPropagationFlags::REC);
    // Nothing of this is to be seen outside.
    all(MountPropagationFlags::DOWNSTREAM)?;
    all(MountPropagationFlags::PRIVATE)?;
    all(MountPropagationFlags::SHARED)?;
    let libraries = unpacked.join(LIBRARIES);
    if libraries.is_dir() {
        // Its C library may be newer than that of this machine, and can stand for it.
        let layers = format!("lowerdir={}:/{LIBRARIES}", libraries.display());
        let layers = std::ffi::CString::new(layers)?;
        let target = Path::new("/").join(LIBRARIES);
        mount::mount(
            "overlay",
            target,
            "overlay",
            MountFlags::RDONLY,
            layers.as_c_str(),
        )?;
    }
    Ok(())
}
