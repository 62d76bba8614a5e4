//! Digests of large files, remembered under what the kernel says about the file.
//!
//! A digest takes about 0.6 ms for each MiB, at each start. A file is known again by its device,
//! inode, size and times of change: nobody but the kernel sets the time of the last change of an
//! inode (`inode(7)`).
//!
//! A write through a shared mapping (`mmap(2)`) changes the times only when it makes a clean page
//! dirty (`page_mkwrite` in `Documentation/filesystems/locking.rst`). So nothing is remembered on a
//! file system that never cleans its pages, as tmpfs, and on others only once the pages have been
//! written back: whatever is written after that makes the file another one.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Hex, digest};
use crate::config::bundle::write_atomically;
use crate::sys;
use crate::sys::memory::Mapping;

/// What is smaller is read faster than it is remembered.
const SMALLEST: u64 = 1 << 20;

/// The clock of a file's times has ticks of some milliseconds, and what changes within one cannot
/// be told apart.
const SETTLED: Duration = Duration::from_secs(2);

/// How many digests are remembered at most.
const MOST: usize = 4096;

/// File systems whose device and inode numbers and times are the kernel's own, and not those of a
/// server or of a process, which may say what they like, and which set the times when a mapping
/// makes a page dirty (`linux/magic.h`; `ext4_page_mkwrite`, `xfs_write_fault` and
/// `f2fs_vm_page_mkwrite` call `file_update_time`): ext4, XFS, F2FS. Not tmpfs, which does not.
const LOCAL: [u64; 3] = [0xEF53, 0x5846_5342, 0xF2F5_2010];
/// A file system that shows files of others.
const OVERLAY: u64 = 0x794c_7630;

/// Where the layers of a container's root file system are described.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root<'a> {
    pub(crate) path: &'a Path,
    /// The options of the overlay that was mounted there, if they are known.
    pub(crate) overlay: &'a [String],
}

/// The digests of this boot: a device has another number in the next.
#[derive(Debug)]
pub(super) struct Digests {
    parent: PathBuf,
    /// How long a file must have been as it is.
    settled: Duration,
}

impl Digests {
    pub(super) fn new(parent: PathBuf) -> Self {
        Self {
            parent,
            settled: SETTLED,
        }
    }

    /// The digest of a file, which may be in the root file system `root`.
    ///
    /// # Errors
    ///
    /// The file cannot be read. That nothing can be remembered is no error.
    pub(super) fn of(&self, file: &File, root: Option<Root<'_>>) -> io::Result<Hex> {
        let known = if file.metadata()?.len() < SMALLEST {
            None
        } else {
            self.known(file, root).unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot tell a file from others");
                None
            })
        };
        if let Some(digest) = known.as_ref().and_then(|known| recall(&known.place)) {
            return Ok(digest);
        }
        let place = known.and_then(|known| {
            let settled = known.settle().inspect_err(|error| {
                tracing::debug!(%error, "cannot have a file written back");
            });
            settled.ok().flatten()
        });
        let digest = digest(Mapping::of_file(file.as_fd())?.as_ref());
        if let Some(place) = place
            && let Err(error) = remember(&place, &digest)
        {
            tracing::warn!(%error, path = %place.display(), "cannot remember a digest");
        }
        Ok(digest)
    }

    fn known(&self, file: &File, root: Option<Root<'_>>) -> io::Result<Option<Known>> {
        let Some(file) = identified(file, root, self.settled)? else {
            return Ok(None);
        };
        let name = name(&file.metadata()?);
        let place = self.directory()?.join(&name);
        Ok(Some(Known { file, name, place }))
    }

    /// Forgets what is of no use any more.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let current = self.directory()?;
        let sweep = || -> io::Result<()> {
            for boot in std::fs::read_dir(&self.parent)? {
                let boot = boot?.path();
                if boot != current || std::fs::read_dir(&boot)?.count() > MOST {
                    std::fs::remove_dir_all(boot)?;
                }
            }
            Ok(())
        };
        match sweep() {
            // There are none, or another sweep was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn directory(&self) -> io::Result<PathBuf> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(self.parent.join(boot.trim()))
    }
}

/// A file that can be known again.
struct Known {
    /// On a file system of [`LOCAL`]; opened to find it only (`O_PATH`).
    file: File,
    name: String,
    place: PathBuf,
}

impl Known {
    /// Has what mappings have written go to the disk, so that the next write through one changes
    /// the file's times. Returns the place for a digest that is made after this; `None` if the file
    /// is another one by now.
    fn settle(self) -> io::Result<Option<PathBuf>> {
        let file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        sys::memory::write_back(&file)?;
        let same = name(&file.metadata()?) == self.name;
        Ok(same.then_some(self.place))
    }
}

fn recall(place: &Path) -> Option<Hex> {
    let text = std::fs::read_to_string(place).ok()?;
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(text)
}

fn remember(place: &Path, digest: &str) -> io::Result<()> {
    match write_atomically(place, digest.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The first of this boot, or the first after a sweep.
            std::fs::create_dir_all(place.parent().unwrap_or(place))?;
            write_atomically(place, digest.as_bytes())
        }
        other => other,
    }
}

/// The file itself, below any overlay; `None` if its times cannot be trusted.
fn identified(file: &File, root: Option<Root<'_>>, settled: Duration) -> io::Result<Option<File>> {
    let shown = file.metadata()?;
    let changed = Duration::new(
        shown.ctime().try_into().unwrap_or_default(),
        shown.ctime_nsec().try_into().unwrap_or_default(),
    );
    // The clock may have been set back since.
    let age = SystemTime::now().duration_since(UNIX_EPOCH + changed);
    if !age.is_ok_and(|age| age >= settled) {
        return Ok(None);
    }
    match (kind(file)?, root) {
        (kind, _) if LOCAL.contains(&kind) => Ok(Some(file.try_clone()?)),
        (OVERLAY, Some(root)) => below(file, root, &shown),
        _ => Ok(None),
    }
}

fn name(file: &Metadata) -> String {
    format!(
        "{}-{}-{}-{}-{}-{}-{}",
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    )
}

fn kind(file: &File) -> io::Result<u64> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    kind.try_into().map_err(io::Error::other)
}

/// The file of a layer that overlayfs shows, by its path in the topmost layer that has it.
///
/// An overlay has a device number of its own, which the next one may get, but shows the inode
/// number and times of the layer's file: what was found is only taken if they are the same.
fn below(file: &File, root: Root<'_>, shown: &Metadata) -> io::Result<Option<File>> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // Seen from the root of another mount namespace, it begins there.
    let inside = path.strip_prefix(root.path).unwrap_or(&path);
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    for layer in layers(root)? {
        let Some(found) = open_below(&layer, inside)? else {
            continue;
        };
        let metadata = found.metadata()?;
        let same = |of: fn(&Metadata) -> [i64; 4]| of(&metadata) == of(shown);
        let is_shown = metadata.ino() == shown.ino()
            && metadata.size() == shown.size()
            && same(|m| [m.ctime(), m.ctime_nsec(), m.mtime(), m.mtime_nsec()]);
        let is_known = is_shown && metadata.is_file() && LOCAL.contains(&kind(&found)?);
        return Ok(is_known.then_some(found));
    }
    Ok(None)
}

fn open_below(layer: &Path, inside: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = || -> rustix::io::Result<OwnedFd> {
        let layer = rustix::fs::open(layer, flags | OFlags::DIRECTORY, Mode::empty())?;
        let inside_only = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(layer, inside, flags, Mode::empty(), inside_only)
    };
    match open() {
        Ok(found) => Ok(Some(File::from(found))),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The layers of an overlay from the top down.
fn layers(root: Root<'_>) -> io::Result<Vec<PathBuf>> {
    if !root.overlay.is_empty() {
        return Ok(layers_of(root.overlay.iter().map(String::as_str)));
    }
    let device = std::fs::metadata(root.path)?.dev();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(layers_of(options(&mountinfo, device).split(',')))
}

/// The options of the overlay that has this device number (`proc_pid_mountinfo(5)`).
fn options(mountinfo: &str, device: u64) -> &str {
    let number = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let found = mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - overlay ")?;
        (mount.split(' ').nth(2) == Some(&number)).then_some(file_system)
    });
    found
        .and_then(|rest| rest.rsplit(' ').next())
        .unwrap_or_default()
}

/// None if one of them has a name that would have to be unescaped, or is relative.
fn layers_of<'a>(options: impl Iterator<Item = &'a str>) -> Vec<PathBuf> {
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for option in options {
        match option.split_once('=') {
            Some(("upperdir", directory)) => upper.push(directory),
            // The kernel shows each layer by itself if they were given so.
            Some(("lowerdir" | "lowerdir+", directories)) => lower.extend(directories.split(':')),
            _ => {}
        }
    }
    upper.append(&mut lower);
    let is_plain = |layer: &&str| layer.starts_with('/') && !layer.contains('\\');
    if upper.iter().all(is_plain) {
        upper.into_iter().map(PathBuf::from).collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A directory whose file system is known, with a large file and nothing remembered of it.
    struct Setting {
        directory: tempfile::TempDir,
        digests: Digests,
    }

    impl Setting {
        fn new(settled: Duration) -> Self {
            let directory = tempfile::tempdir_in("/var/tmp").unwrap();
            let kind = kind(&File::open(directory.path()).unwrap()).unwrap();
            assert!(
                LOCAL.contains(&kind),
                "/var/tmp is on none of ext4, XFS and F2FS"
            );
            std::fs::write(directory.path().join("file"), vec![7; SMALLEST as usize]).unwrap();
            let parent = directory.path().join("digests");
            let digests = Digests { parent, settled };
            Self { directory, digests }
        }

        fn digest(&self) -> Hex {
            let file = File::open(self.directory.path().join("file")).unwrap();
            self.digests.of(&file, None).unwrap()
        }

        fn remembered(&self) -> Vec<PathBuf> {
            let directory = self.digests.directory().unwrap();
            let entries = std::fs::read_dir(directory).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        }
    }

    #[test]
    fn what_has_not_changed_is_not_read_again() {
        let setting = Setting::new(Duration::ZERO);
        assert_eq!(setting.digest(), digest(&vec![7; SMALLEST as usize]));
        let [place] = &setting.remembered()[..] else {
            panic!("{:?}", setting.remembered());
        };
        // Only who does not read can be told so.
        let other = digest(b"other");
        std::fs::write(place, &other).unwrap();
        assert_eq!(setting.digest(), other);
    }

    #[test]
    fn whatever_is_written_makes_it_another_file() {
        let setting = Setting::new(Duration::ZERO);
        setting.digest();
        let path = setting.directory.path().join("file");
        let before = std::fs::metadata(&path).unwrap();
        let mut content = vec![7; SMALLEST as usize];
        content[0] = 8;
        // The clock of the file system has to tick, or else this is what `SETTLED` is for.
        while std::fs::metadata(&path).unwrap().ctime_nsec() == before.ctime_nsec() {
            let mut file = File::options().write(true).open(&path).unwrap();
            file.write_all(&content).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
        assert_eq!(setting.digest(), digest(&content));
    }

    /// Writes a byte through a shared mapping, which changes no time if the page is dirty already.
    #[test]
    fn what_a_mapping_writes_is_never_missed() {
        for directory in ["/var/tmp", "/dev/shm"] {
            let directory = tempfile::tempdir_in(directory).unwrap();
            let path = directory.path().join("file");
            std::fs::write(&path, vec![7; SMALLEST as usize]).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut mapping = sys::memory::SharedMapping::of_file(&file).unwrap();
            mapping.write(0, 1);
            let digests = Digests {
                parent: directory.path().join("digests"),
                settled: Duration::ZERO,
            };
            for value in 2..5 {
                let file = File::open(&path).unwrap();
                digests.of(&file, None).unwrap();
                // The clock of the file system has to tick, or else this is what `SETTLED` is for.
                std::thread::sleep(Duration::from_millis(20));
                mapping.write(0, value);
                let mut content = vec![7; SMALLEST as usize];
                content[0] = value;
                assert_eq!(digests.of(&file, None).unwrap(), digest(&content));
            }
        }
    }

    #[test]
    fn what_has_just_changed_or_is_small_is_not_remembered() {
        let setting = Setting::new(Duration::from_secs(3600));
        setting.digest();
        assert!(setting.remembered().is_empty());
        let setting = Setting::new(Duration::ZERO);
        std::fs::write(setting.directory.path().join("file"), "small").unwrap();
        assert_eq!(setting.digest(), digest(b"small"));
        assert!(setting.remembered().is_empty());
    }

    #[test]
    fn what_is_no_digest_is_not_believed() {
        let setting = Setting::new(Duration::ZERO);
        let right = setting.digest();
        std::fs::write(&setting.remembered()[0], "").unwrap();
        assert_eq!(setting.digest(), right);
        assert_eq!(setting.digest(), right);
    }

    #[test]
    fn other_boots_are_forgotten() {
        let setting = Setting::new(Duration::ZERO);
        setting.digests.sweep().unwrap();
        setting.digest();
        let other = setting.digests.parent.join("another-boot");
        std::fs::create_dir(&other).unwrap();
        setting.digests.sweep().unwrap();
        assert!(!other.exists());
        assert_eq!(setting.remembered().len(), 1);
    }

    #[test]
    fn layers_are_found_from_the_top_down() {
        let mountinfo = "\
36 35 0:41 / /other rw - overlay overlay rw,lowerdir=/x,upperdir=/y,workdir=/w
37 35 0:42 / /run/rootfs rw,relatime shared:1 - overlay overlay rw,lowerdir=/l/2:/l/1,upperdir=/u,workdir=/w
";
        let device = rustix::fs::makedev(0, 42);
        let found = layers_of(options(mountinfo, device).split(','));
        assert_eq!(
            found,
            [Path::new("/u"), Path::new("/l/2"), Path::new("/l/1")]
        );
        let single = ["lowerdir+=/l/2", "lowerdir+=/l/1"].into_iter();
        assert_eq!(layers_of(single), [Path::new("/l/2"), Path::new("/l/1")]);
        assert_eq!(options(mountinfo, rustix::fs::makedev(0, 43)), "");
    }

    #[test]
    fn layers_that_cannot_be_named_are_none() {
        for options in ["lowerdir=2:1", "lowerdir=/a\\:b", "lowerdir=/a\\040b:/c"] {
            assert!(layers_of([options].into_iter()).is_empty(), "{options}");
        }
    }
}
