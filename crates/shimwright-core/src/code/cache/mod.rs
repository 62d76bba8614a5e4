//! Precompiled artifacts: compiled once on this machine, then shared by all containers.
//!
//! There is one directory for each key, named after everything that the native code depends on. It
//! holds one file, named after the digest of its content. Both are created elsewhere and renamed.

mod digests;
mod eviction;
mod file;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub(crate) use self::digests::Root;
pub(crate) use self::file::frozen;
use self::file::open_stored;

use self::digests::Digests;
use crate::error::{Context, Error};
use crate::sys;
use crate::sys::memory::Mapping;

/// Where artifacts are kept unless [`DIRECTORY_VARIABLE`] says otherwise.
const DIRECTORY: &str = "/var/cache/shimwright";

/// The variable of the shim's environment that names another directory.
pub(crate) const DIRECTORY_VARIABLE: &str = "SHIMWRIGHT_CACHE_DIR";

/// The byte of the first turn to compile: beyond those of all keys.
const FIRST_TURN: i64 = 1 << 61;
/// The byte of the first group to compile in: beyond those of all turns.
const FIRST_GROUP: i64 = 1 << 62;

/// A SHA-256 digest in hexadecimal.
pub(crate) type Hex = String;

/// The directory of precompiled artifacts.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    digests: Digests,
}

impl Cache {
    /// Opens the cache, which only its owner may read or write.
    pub(crate) fn open() -> Result<Self, Error> {
        let directory = std::env::var_os(DIRECTORY_VARIABLE)
            .filter(|value| !value.is_empty())
            .map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from);
        Self::at(directory)
    }

    pub(crate) fn at(directory: PathBuf) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        let cannot_make = || format!("make the cache {}", directory.display());
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(directory.join("empty"))
            .with_context(cannot_make)?;
        let digests = Digests::new(directory.join("digests"));
        let cache = Self { directory, digests };
        cache.check_owner()?;
        Ok(cache)
    }

    /// What is loaded from here runs as native code: nobody else may have put it there.
    fn check_owner(&self) -> Result<(), Error> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::symlink_metadata(&self.directory)
            .with_context(|| format!("inspect the cache {}", self.directory.display()))?;
        let owner = rustix::process::geteuid().as_raw();
        if metadata.is_dir() && metadata.uid() == owner && metadata.mode() & 0o022 == 0 {
            return Ok(());
        }
        Err(Error::Failed {
            action: format!("use the cache {}", self.directory.display()),
            source: format!("not a directory that only user {owner} can write").into(),
        })
    }

    /// An empty directory, for a process that needs a root but no files.
    pub(crate) fn empty_directory(&self) -> PathBuf {
        self.directory.join("empty")
    }

    /// The digest of a file; a large one that has not changed since the last time is not read.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn digest(&self, file: &File, root: Root<'_>) -> Result<Hex, Error> {
        let digest = self.digests.of(file, Some(root));
        digest.context("read the module")
    }

    /// Finds an artifact whose content is what was stored.
    ///
    /// One that is damaged is removed, so it is compiled again.
    ///
    /// # Errors
    ///
    /// It cannot be read, or a damaged one cannot be removed.
    pub(crate) fn find(&self, key: &str) -> Result<Option<File>, Error> {
        let place = self.directory.join(key);
        match self.look_at(&place) {
            Ok(Found::Whole(file)) => {
                eviction::touch(&place);
                return Ok(Some(file));
            }
            Ok(Found::Damaged) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // It says nothing about the content: the process has too many files, or the disk fails.
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", place.display()));
            }
        }
        tracing::warn!(path = %place.display(), "removing a damaged artifact");
        match std::fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", place.display()))
            }
            _ => Ok(None),
        }
    }

    fn look_at(&self, place: &Path) -> io::Result<Found> {
        let Some(entry) = std::fs::read_dir(place)?.next() else {
            return Ok(Found::Damaged);
        };
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            return Ok(Found::Damaged);
        }
        let file = open_stored(&entry.path())?;
        let digest = self.digests.of(&file, None)?;
        if entry.file_name().to_str() == Some(digest.as_str()) {
            Ok(Found::Whole(file))
        } else {
            Ok(Found::Damaged)
        }
    }

    /// Finds an artifact, or has it compiled into the file `compile` is given.
    ///
    /// Of several processes that ask for the same key at once, one compiles and the others wait:
    /// they look again after each `pause`, which fails if they need not wait any more.
    pub(crate) fn find_or_compile(
        &self,
        key: &str,
        pause: impl Fn() -> Result<(), Error>,
        compile: impl FnOnce(&File) -> Result<(), Error>,
    ) -> Result<File, Error> {
        if let Some(found) = self.find(key)? {
            return Ok(found);
        }
        let lock = self.lock_file()?;
        while !sys::lock::try_lock_byte(lock.as_fd(), lock_offset(key)).context("lock the cache")? {
            pause()?;
        }
        if let Some(found) = self.find(key)? {
            return Ok(found);
        }
        let aside = self.directory.join(format!("{key}.{}", std::process::id()));
        let stored = self.compile_aside(&aside, key, compile);
        if stored.is_err() {
            let _ = std::fs::remove_dir_all(&aside);
        }
        stored
    }

    /// Makes room, once `keep` has been stored: at most `most` bytes of artifacts remain, but
    /// `keep` does in any case.
    ///
    /// # Errors
    ///
    /// What could not be removed.
    pub(crate) fn sweep(&self, most: u64, keep: &str) -> Result<(), Error> {
        let lock = self.lock_file()?;
        let gone = eviction::sweep(&self.directory, &lock, most, keep)
            .and_then(|gone| self.digests.sweep().map(|()| gone))
            .with_context(|| format!("make room in the cache {}", self.directory.display()))?;
        if gone > 0 {
            tracing::info!(gone, most, "the cache was full");
        }
        Ok(())
    }

    /// The file whose bytes are locked.
    pub(crate) fn lock_file(&self) -> Result<File, Error> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.directory.join("lock"))
            .context("open the cache's lock")
    }

    /// Takes one of the turns to compile, if it is free; it ends with the open file.
    pub(crate) fn try_turn(lock: &File, number: u16) -> io::Result<bool> {
        sys::lock::try_lock_byte(lock.as_fd(), FIRST_TURN + i64::from(number))
    }

    /// Takes a cgroup to compile in, if it is free; it is so again with the end of the open file.
    pub(crate) fn try_group(lock: &File, group: &Path) -> io::Result<bool> {
        let offset = lock_offset(&digest(group.as_os_str().as_bytes()));
        sys::lock::try_lock_byte(lock.as_fd(), FIRST_GROUP + offset)
    }

    /// A name of this cache among those of the node.
    pub(crate) fn identity(&self) -> Result<String, Error> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(&self.directory).context("inspect the cache")?;
        Ok(format!("{:x}-{:x}", metadata.dev(), metadata.ino()))
    }

    fn compile_aside(
        &self,
        aside: &Path,
        key: &str,
        compile: impl FnOnce(&File) -> Result<(), Error>,
    ) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let cannot_store = || format!("store an artifact in {}", self.directory.display());
        std::fs::create_dir(aside).with_context(cannot_store)?;
        let unnamed = aside.join("unnamed");
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o400)
            .open(&unnamed)
            .with_context(cannot_store)?;
        compile(&file)?;
        let digest = digest(
            Mapping::of_file(file.as_fd())
                .with_context(cannot_store)?
                .as_ref(),
        );
        let named = aside.join(digest);
        std::fs::rename(&unnamed, &named).with_context(cannot_store)?;
        // Opened again: a runner must not inherit a descriptor that can write.
        let stored = open_stored(&named).with_context(cannot_store)?;
        std::fs::rename(aside, self.directory.join(key)).with_context(cannot_store)?;
        Ok(stored)
    }
}

/// What is in the place of an artifact.
enum Found {
    /// What was stored.
    Whole(File),
    /// Something else.
    Damaged,
}

/// The name of everything that native code depends on.
pub(crate) fn key(engine: &str, fingerprint: &str, wasm: &str) -> Hex {
    let mut hasher = Sha256::new();
    for part in ["shimwright 1", engine, fingerprint, wasm] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// The digest of some bytes, as the OCI image spec writes it without `sha256:`.
pub(crate) fn digest(bytes: &[u8]) -> Hex {
    hex(&Sha256::digest(bytes))
}

/// A digest in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> Hex {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Keys share one lock file, each locking a byte of its own: nothing is left to clean up.
fn lock_offset(key: &str) -> i64 {
    let start = key.get(..15).unwrap_or_default();
    i64::from_str_radix(start, 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::error;
    use std::io::{Read, Write};

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("cache")).unwrap();
        (directory, cache)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is one of several")]
    fn wait() -> Result<(), Error> {
        std::thread::yield_now();
        Ok(())
    }

    fn content(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn write(text: &'static str) -> impl FnOnce(&File) -> Result<(), Error> {
        move |mut file| file.write_all(text.as_bytes()).context("write")
    }

    #[test]
    fn what_is_compiled_is_found_again() {
        let (_directory, cache) = cache();
        let key = key("e", "f", "w");
        assert!(cache.find(&key).unwrap().is_none());
        assert_eq!(
            content(cache.find_or_compile(&key, wait, write("native")).unwrap()),
            "native"
        );
        let found = cache
            .find_or_compile(&key, wait, |_| panic!("compiled twice"))
            .unwrap();
        assert_eq!(content(found), "native");
    }

    #[test]
    fn a_damaged_artifact_is_compiled_again() {
        let (_directory, cache) = cache();
        let key = key("e", "f", "w");
        cache.find_or_compile(&key, wait, write("native")).unwrap();
        let place = cache.directory.join(&key);
        let stored = std::fs::read_dir(&place)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        std::fs::remove_file(&stored).unwrap();
        std::fs::write(&stored, "damaged").unwrap();
        assert_eq!(
            content(cache.find_or_compile(&key, wait, write("native")).unwrap()),
            "native"
        );
    }

    #[test]
    fn an_artifact_that_cannot_be_read_is_not_damaged() {
        const ALONE: &str = "SHIMWRIGHT_TEST_ALONE";
        const NAME: &str = "an_artifact_that_cannot_be_read_is_not_damaged";
        if std::env::var_os(ALONE).is_none() {
            // The limit is one of the whole process.
            let own = std::env::current_exe().unwrap();
            let name = format!("{}::{NAME}", module_path!().split_once("::").unwrap().1);
            let mut alone = std::process::Command::new(own);
            let ran = alone.args(["--exact", &name]).env(ALONE, "").output();
            let ran = ran.unwrap();
            let text = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let (_directory, cache) = cache();
        let key = key("e", "f", "w");
        cache.find_or_compile(&key, wait, write("native")).unwrap();
        let limit = |number| {
            use rustix::process::{Resource, getrlimit, setrlimit};
            let mut limit = getrlimit(Resource::Nofile);
            let before = limit.current.replace(number).unwrap();
            setrlimit(Resource::Nofile, limit).unwrap();
            before
        };
        let next = File::open("/dev/null").unwrap().as_raw_fd().unsigned_abs();
        // Too few for the directory, then for the file in it, then for the mapping.
        for more in 0..3 {
            let before = limit(u64::from(next) + more);
            let found = cache.find(&key);
            limit(before);
            if let Err(error) = found {
                let text = error::chain(&error);
                assert!(text.contains("Too many open files"), "{text}");
            }
            assert!(is_there(&cache, &key), "{more}");
        }
        assert_eq!(content(cache.find(&key).unwrap().unwrap()), "native");
    }

    #[test]
    fn a_failed_compile_leaves_nothing() {
        let (_directory, cache) = cache();
        let key = key("e", "f", "w");
        cache
            .find_or_compile(&key, wait, |_| Err(Error::invalid("no module")))
            .unwrap_err();
        let names: Vec<_> = std::fs::read_dir(&cache.directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            names.iter().all(|name| name == "empty" || name == "lock"),
            "{names:?}"
        );
    }

    /// Stores ten bytes under this letter, as used so many minutes ago.
    fn store(cache: &Cache, letter: &str, minutes: u64) -> Hex {
        let key = key("e", "f", letter);
        cache
            .find_or_compile(&key, wait, write("10 bytes.."))
            .unwrap();
        let used = std::time::SystemTime::now() - std::time::Duration::from_secs(60 * minutes);
        let place = File::open(cache.directory.join(&key)).unwrap();
        place.set_modified(used).unwrap();
        key
    }

    fn is_there(cache: &Cache, key: &str) -> bool {
        cache.directory.join(key).exists()
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let (_directory, cache) = cache();
        let [old, older, new] = [("a", 200), ("b", 300), ("c", 0)]
            .map(|(letter, minutes)| store(&cache, letter, minutes));
        cache.sweep(30, &new).unwrap();
        assert!(is_there(&cache, &older));
        // Using it is noted.
        cache.find(&older).unwrap().unwrap();
        cache.sweep(20, &new).unwrap();
        assert!(!is_there(&cache, &old) && is_there(&cache, &older) && is_there(&cache, &new));
        // What has just been stored stays, however large it is.
        cache.sweep(5, &new).unwrap();
        assert!(!is_there(&cache, &older) && is_there(&cache, &new));
        assert!(cache.find(&old).unwrap().is_none());
    }

    #[test]
    fn what_a_killed_compilation_left_is_removed_but_not_one_that_goes_on() {
        let (_directory, cache) = cache();
        let [left, compiling] = ["a", "b"].map(|letter| key("e", "f", letter));
        let aside = |key: &str| cache.directory.join(format!("{key}.1"));
        std::fs::create_dir(aside(&left)).unwrap();
        std::fs::create_dir(aside(&compiling)).unwrap();
        let lock = cache.lock_file().unwrap();
        assert!(sys::lock::try_lock_byte(lock.as_fd(), lock_offset(&compiling)).unwrap());
        cache.sweep(u64::MAX, &store(&cache, "c", 0)).unwrap();
        assert!(!aside(&left).exists() && aside(&compiling).exists());
        drop(lock);
        cache.sweep(u64::MAX, "").unwrap();
        assert!(!aside(&compiling).exists());
    }

    #[test]
    fn a_cache_that_others_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::at(open).is_err());
    }

    #[test]
    fn keys_differ_in_every_part() {
        let keys = [
            key("a", "b", "c"),
            key("ab", "", "c"),
            key("a", "bc", ""),
            key("a", "b", "d"),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(keys[index + 1..].iter().all(|other| other != one));
        }
    }
}
