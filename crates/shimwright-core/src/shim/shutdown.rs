//! When a shim process may end although a `start` command may have found it.
//!
//! Most of this is about the process that all containers of a node share.
//! containerd asks for it when a container is gone and there is no task left. At that moment the
//! `start` command of another container may have found the process alive, and be about to give its
//! address to containerd, which would then reach nobody. So `start` writes the address into the
//! container's bundle while it holds the lock on the sockets' directory, and the process ends only
//! if it finds no such bundle while it holds the same lock.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::fs::inotify::WatchFlags;

use super::start::{ADDRESS_FILE, address_in};
use crate::config::bundle::validate_id;
use crate::service::Service;
use crate::sys;

/// How long to wait until the lock is tried again: its release is no event, and `start` holds it
/// for some ten microseconds.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// What the process has to know to end in good order.
#[derive(Debug)]
pub(crate) struct Shutdown {
    socket: PathBuf,
    /// The directory of containerd's bundles for this namespace.
    bundles: PathBuf,
    /// Bundles that still exist, although their containers are gone.
    released: Mutex<HashMap<PathBuf, Identity>>,
}

/// Tells a file with an address from the next one in a bundle of the same id.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(bundle: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(bundle.join(ADDRESS_FILE))?;
        Ok(Self {
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Shutdown {
    pub(super) fn new(socket: PathBuf, bundles: PathBuf) -> Self {
        Self {
            socket,
            bundles,
            released: Mutex::default(),
        }
    }

    /// A container has no need of this process any more, although its bundle still exists.
    pub(crate) fn release(&self, id: &str) {
        if validate_id("container", id).is_err() {
            return;
        }
        let bundle = self.bundles.join(id);
        let mut released = self.released();
        released.retain(|bundle, released| is_still(bundle, released));
        if let Ok(identity) = Identity::of(&bundle) {
            released.insert(bundle, identity);
        }
    }

    /// Returns once containerd has asked for the end and nobody can miss this process. Its socket
    /// is gone then.
    pub(super) async fn allowed(&self, service: &Service) {
        loop {
            service.shut_down().await;
            while service.is_idle() {
                let Some(claim) = self.leave().await else {
                    return;
                };
                tracing::debug!(bundle = %claim.display(), "staying for another container");
                tokio::select! {
                    () = service.shut_down() => {}
                    // Its bundle can go without a word if it never got as far as a task.
                    () = released(&claim) => {}
                }
            }
        }
    }

    /// Removes the socket unless a bundle has its address, which is returned.
    async fn leave(&self) -> Option<PathBuf> {
        remove_unless(&self.socket, || self.claim()).await
    }

    fn claim(&self) -> Option<PathBuf> {
        let bundles = std::fs::read_dir(&self.bundles).into_iter().flatten();
        bundles
            .filter_map(|bundle| Some(bundle.ok()?.path()))
            .find(|bundle| self.is_claim(bundle))
    }

    fn is_claim(&self, bundle: &Path) -> bool {
        let released = self.released();
        let is_released = |bundle| {
            let released = released.get(bundle);
            released.is_some_and(|released| is_still(bundle, released))
        };
        address_in(bundle).is_some_and(|path| path == self.socket) && !is_released(bundle)
    }

    fn released(&self) -> MutexGuard<'_, HashMap<PathBuf, Identity>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the socket of a process whose `start` command is gone, unless another `start` command
/// has found the process and may have printed its address. Returns whether the process may end.
///
/// A `start` command that finds a process connects to its socket, under the lock. Before this
/// process serves, it accepts nothing, so such a connection still waits.
pub(super) async fn abandon(listener: &UnixListener, socket: &Path) -> bool {
    // Its `start` command has failed before anybody could find it, or has found another process,
    // whose socket this is.
    if listener.local_addr().is_ok_and(|own| own.is_unnamed()) {
        return true;
    }
    let found = || sys::fd::becomes_readable(listener, Instant::now()).unwrap_or(true);
    remove_unless(socket, || found().then_some(()))
        .await
        .is_none()
}

/// Removes a socket unless `needed`, called under the lock, returns who needs it.
async fn remove_unless<T>(socket: &Path, needed: impl Fn() -> Option<T>) -> Option<T> {
    loop {
        match try_remove_unless(socket, &needed) {
            Ok(needed) => return needed,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Without the directory nobody can reach this process.
            Err(error) => {
                tracing::warn!(%error, "cannot lock the sockets' directory");
                return None;
            }
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}

fn try_remove_unless<T>(socket: &Path, needed: impl Fn() -> Option<T>) -> io::Result<Option<T>> {
    let _lock = lock(socket, FlockOperation::NonBlockingLockExclusive)?;
    let needed = needed();
    if needed.is_none() {
        // Should it stay behind, the next `start` finds it dead.
        let _ = std::fs::remove_file(socket);
    }
    Ok(needed)
}

fn is_still(bundle: &Path, identity: &Identity) -> bool {
    Identity::of(bundle).is_ok_and(|now| now == *identity)
}

/// Locks the directory of a socket, until what is returned is dropped.
pub(super) fn lock(socket: &Path, how: FlockOperation) -> io::Result<File> {
    let directory = File::open(socket.parent().unwrap_or(Path::new("/")))?;
    rustix::fs::flock(&directory, how)?;
    Ok(directory)
}

/// Waits until the address of a bundle has been removed or replaced.
async fn released(bundle: &Path) {
    // A file that is replaced loses its last link, which is a change of its attributes.
    let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
    match sys::fd::watch_file(&bundle.join(ADDRESS_FILE), gone) {
        Ok(watch) => drop(watch.readable().await),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(%error, "cannot watch a bundle");
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shutdown(directory: &Path) -> Shutdown {
        let shutdown = Shutdown::new(directory.join("s/socket"), directory.join("bundles"));
        std::fs::create_dir_all(directory.join("s")).unwrap();
        std::fs::write(&shutdown.socket, "").unwrap();
        shutdown
    }

    fn bundle(shutdown: &Shutdown, id: &str, socket: &Path) -> PathBuf {
        let bundle = shutdown.bundles.join(id);
        std::fs::create_dir_all(&bundle).unwrap();
        let address = format!("unix://{}", socket.display());
        std::fs::write(bundle.join(ADDRESS_FILE), address).unwrap();
        bundle
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn bundles_with_the_address_keep_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = shutdown(directory.path());
        let leave = || block_on(shutdown.leave());
        let kept = bundle(&shutdown, "a", &shutdown.socket);
        bundle(&shutdown, "b", Path::new("/another"));
        assert_eq!(leave(), Some(kept));
        assert!(shutdown.socket.exists());
        shutdown.release("b");
        shutdown.release("../a");
        assert!(leave().is_some());
        shutdown.release("a");
        // The next container of that name is another.
        std::fs::remove_dir_all(shutdown.bundles.join("a")).unwrap();
        bundle(&shutdown, "a", &shutdown.socket);
        assert!(leave().is_some());
        shutdown.release("a");
        assert_eq!(leave(), None);
        assert!(!shutdown.socket.exists());
    }

    #[test]
    fn a_socket_that_a_start_command_has_found_stays() {
        let directory = tempfile::tempdir().unwrap();
        let bind = |name| {
            let socket = directory.path().join(name);
            (UnixListener::bind(&socket).unwrap(), socket)
        };
        let (found, socket) = bind("found");
        // It only checks whether the socket accepts connections.
        drop(std::os::unix::net::UnixStream::connect(&socket).unwrap());
        assert!(!block_on(abandon(&found, &socket)));
        assert!(socket.exists());
        let unbound = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        );
        assert!(block_on(abandon(&unbound.unwrap().into(), &socket)));
        assert!(socket.exists());
        let (unknown, socket) = bind("unknown");
        assert!(block_on(abandon(&unknown, &socket)));
        assert!(!socket.exists());
    }

    #[test]
    fn nothing_is_decided_while_a_start_command_decides() {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = shutdown(directory.path());
        let held = lock(&shutdown.socket, FlockOperation::LockExclusive).unwrap();
        let error = try_remove_unless(&shutdown.socket, || shutdown.claim()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(shutdown.socket.exists());
        drop(held);
        assert_eq!(block_on(shutdown.leave()), None);
    }

    #[test]
    fn a_bundle_that_goes_without_a_word_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = shutdown(directory.path());
        let bundle = bundle(&shutdown, "a", &shutdown.socket);
        block_on(async {
            let remove = async { std::fs::remove_dir_all(&bundle).unwrap() };
            tokio::join!(released(&bundle), remove);
            // And once more, now that it is not there.
            released(&bundle).await;
        });
    }
}
