//! A fake containerd that drives a real shim binary, for tests and benchmarks.
//!
//! [`Containerd`] is what a shim sees of a daemon: a namespace, bundles, the socket to which it
//! sends its events, and the commands `start`, `delete`, `-info` and `-v`. [`Shim`] is what the
//! daemon sees of a shim: its Task service, under both of its names. [`Snapshot`] lists what shims
//! leave on a machine.
//!
//! All of it blocks, with a deadline; nothing sleeps where something can be awaited.

pub mod bundle;
pub mod events;
mod images;
pub mod shim;
pub mod snapshot;
pub mod stdio;
mod version;

use images::Images;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

pub use bundle::Bundle;
pub use containerd_shim_protos as protos;
pub use events::{Event, Events};
pub use images::Image;
pub use shim::Shim;
pub use snapshot::Snapshot;
pub use stdio::{Input, Output};
pub use version::Version;

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The variable with the directory of the shims under test.
pub const SHIM_DIR_VARIABLE: &str = "SHIMWRIGHT_SHIM_DIR";

/// The variable with the directory of compiled guests, which shims pass on to their processes.
pub const CACHE_DIR_VARIABLE: &str = "SHIMWRIGHT_CACHE_DIR";

/// The variable with the file of the node's configuration.
pub const CONFIG_VARIABLE: &str = "SHIMWRIGHT_CONFIG";

const CONFIG: &str = "config.toml";

/// Where the daemon, and so its shims, look for commands.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Any failure of the testkit itself.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of what the testkit does.
pub type Result<T> = std::result::Result<T, Error>;

/// A containerd with one namespace and a directory of its own, both gone when it is dropped.
#[derive(Debug)]
pub struct Containerd {
    shim: PathBuf,
    namespace: String,
    directory: PathBuf,
    cache: PathBuf,
    path: OsString,
    events: Events,
    /// Answers until it is dropped.
    images: Images,
    sockets: Mutex<Vec<PathBuf>>,
}

impl Containerd {
    /// A containerd whose runtime is the shim called `name` in the directory under test.
    ///
    /// # Errors
    ///
    /// If we are not root or there is no such shim, naming the remedy.
    pub fn new(name: &str) -> Result<Self> {
        const REMEDY: &str = "run the tests with `cargo xtask test`";
        let directory = std::env::var_os(SHIM_DIR_VARIABLE)
            .ok_or_else(|| format!("{SHIM_DIR_VARIABLE} is not set: {REMEDY}"))?;
        let shim = Path::new(&directory).join(name);
        if !shim.exists() {
            return Err(format!("there is no {}: {REMEDY}", shim.display()).into());
        }
        if !rustix::process::geteuid().is_root() {
            return Err(format!("only root can run containers: {REMEDY}").into());
        }
        Self::with_shim(&shim)
    }

    /// A containerd whose runtime is this executable.
    ///
    /// # Errors
    ///
    /// If its directory or its socket cannot be created.
    pub fn with_shim(shim: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("shimwright-test-{}-{number}", std::process::id());
        let directory = memory_directory().join(&namespace);
        fs::create_dir(&directory)?;
        let cache = match std::env::var_os(CACHE_DIR_VARIABLE) {
            Some(cache) => PathBuf::from(cache),
            None => memory_directory().join("shimwright-test-cache"),
        };
        create_private(&cache)?;
        fs::write(directory.join(CONFIG), "")?;
        let events = Events::listen(&directory.join("events.sock"))?;
        let images = Images::listen(&directory.join("grpc.sock"))?;
        Ok(Self {
            shim: fs::canonicalize(shim)?,
            namespace,
            directory,
            cache,
            path: SEARCH_PATH.into(),
            events,
            images,
            sockets: Mutex::default(),
        })
    }

    /// The same with this directory of compiled guests, made if need be.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn with_cache(mut self, cache: &Path) -> Result<Self> {
        create_private(cache)?;
        self.cache = cache.to_owned();
        Ok(self)
    }

    /// The same with a directory in which commands that shims run are looked for first.
    pub fn with_path(mut self, first: &Path) -> Self {
        self.path = first.into();
        self.path.push(":");
        self.path.push(SEARCH_PATH);
        self
    }

    /// The executable of the runtime.
    pub fn shim(&self) -> &Path {
        &self.shim
    }

    /// The namespace, in containerd's sense; no other test has it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The directory of everything that belongs to this containerd, in memory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The events that shims have sent.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Replaces the node's configuration of shims, which says nothing at first.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.config(), text)?)
    }

    /// The file of the node's configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.join(CONFIG)
    }

    /// A bundle for a container with this id.
    ///
    /// # Errors
    ///
    /// If its directory cannot be created.
    pub fn bundle(&self, id: &str) -> Result<Bundle> {
        Bundle::new(&self.directory, &self.namespace, id)
    }

    /// Says which image the container with this id is made from. Without that it has none.
    pub fn image(&self, id: &str, image: Image) {
        self.images.insert(id, image);
    }

    /// What belongs to this containerd and its shims at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot::take(&self.shim, &self.namespace, &self.directory, &sockets)
    }

    /// Waits until nothing of any container or shim is left.
    ///
    /// # Errors
    ///
    /// Lists what is still there after the deadline.
    pub fn wait_until_clean(&self) -> Result<()> {
        let clean = poll(|| self.snapshot().is_empty().then_some(()));
        clean.ok_or_else(|| format!("left behind: {:#?}", self.snapshot()).into())
    }

    fn remember(&self, address: &str) {
        let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if !sockets.contains(&path) {
            sockets.push(path);
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Killing a shim may let a guest be seen that was about to be created.
        let _ = poll_for(Duration::from_secs(5), || {
            let processes = self.snapshot().processes;
            for process in &processes {
                process.kill();
            }
            processes.is_empty().then_some(())
        });
        let left = self.snapshot();
        for mount in left.mounts.iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        // What has been killed is in its cgroup until the kernel is done with it.
        let _ = poll_for(Duration::from_secs(5), || {
            let mut cgroups = snapshot::namespace_cgroups(&self.namespace);
            cgroups.extend(self.snapshot().cgroups);
            for cgroup in cgroups.iter().rev() {
                let _ = fs::remove_dir(cgroup);
            }
            cgroups.iter().all(|cgroup| !cgroup.exists()).then_some(())
        });
        for socket in &left.sockets {
            let _ = fs::remove_file(socket);
            remove_links_to(socket);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Removes the names by which tools know a socket: links beside it.
fn remove_links_to(socket: &Path) {
    let beside = socket.parent().map(fs::read_dir);
    for entry in beside.into_iter().flatten().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| socket.ends_with(target)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Tries until there is a value or the deadline has passed.
pub fn poll<T>(attempt: impl FnMut() -> Option<T>) -> Option<T> {
    poll_for(DEADLINE, attempt)
}

/// Tries until there is a value or this time has passed. For what nothing announces.
pub fn poll_for<T>(bound: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A tmpfs, where creating bundles costs nothing and `overlay` works.
fn memory_directory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        shared.to_owned()
    } else {
        PathBuf::from("/run")
    }
}

/// Shims use a cache only if nobody else can write to it.
fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
}
