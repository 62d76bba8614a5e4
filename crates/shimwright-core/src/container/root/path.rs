//! Paths of a container, resolved inside its root by the kernel (`openat2(2)`).
//!
//! Nothing here follows a link out of the root, whatever the image and those who change it meanwhile do.
//! libcontainer 0.7 makes nodes and links of `/dev` by paths that are seen from the node.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::container::entrypoint;

/// How many links a path may have (`MAXSYMLINKS` of the kernel is 40, that of runc 255).
const MAX_LINKS: usize = 255;
/// How often the kernel may ask to try again, because something was renamed meanwhile.
const MAX_TRIES: usize = 128;

/// What a path of a container leads to.
#[derive(Debug)]
pub(crate) struct Found {
    /// The path from the root, without links, `.` and `..`.
    pub(crate) real: PathBuf,
    /// What is there (`O_PATH`), if there is something.
    pub(crate) file: Option<OwnedFd>,
}

/// A path as runc takes it: absolute, with `.` and `..` taken out by name, before any link is looked at.
/// Without the first `/`.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let normal = entrypoint::normal(path);
    normal.strip_prefix("/").unwrap_or(&normal).to_owned()
}

/// Finds what is at a path that [`clean`] returned.
pub(crate) fn find(root: BorrowedFd<'_>, path: &Path) -> io::Result<Found> {
    let found = |real: PathBuf| match open_plain(root, &real, OFlags::PATH) {
        Ok(file) => Ok(Found {
            real,
            file: Some(file),
        }),
        // A link that leads nowhere is reported as a link.
        Err(Errno::NOENT) => Ok(Found { real, file: None }),
        Err(error) => Err(error),
    };
    match found(path.to_owned()) {
        Err(Errno::LOOP) => Ok(found(resolve(root, path)?)?),
        other => Ok(other?),
    }
}

/// Opens what is at a path that has no links.
fn open_plain(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Opens one entry of a directory, and not what a link there leads to.
fn open_entry(directory: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Makes a directory and those above it, as far as they are missing, and opens it (`O_PATH`). `real` has
/// no links.
pub(crate) fn make_directory(root: BorrowedFd<'_>, real: &Path) -> io::Result<OwnedFd> {
    match open_plain(root, real, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => make_missing(root, real),
        other => Ok(other?),
    }
}

/// Likewise, where nothing has been found.
pub(super) fn make_missing(root: BorrowedFd<'_>, real: &Path) -> io::Result<OwnedFd> {
    let (parent, name) = split(real)?;
    let made;
    let parent = if parent.as_os_str().is_empty() {
        root
    } else {
        // As deep as the path has parts, of which there are a few thousand at the most.
        made = make_directory(root, parent)?;
        made.as_fd()
    };
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(open_entry(parent, name, OFlags::PATH | OFlags::DIRECTORY)?)
}

/// Makes an empty file where there is none, and the directories above it. `real` has no links.
pub(crate) fn make_file(root: BorrowedFd<'_>, real: &Path) -> io::Result<OwnedFd> {
    let (parent, name) = split(real)?;
    let parent = make_directory(root, parent)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    Ok(rustix::fs::openat(&parent, name, flags, mode)?)
}

/// The directory of a path and the name in it.
pub(crate) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent()
        .zip(path.file_name())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The path that links lead to, whether it is there or not: what is missing has no links
/// (`SecureJoin` of `filepath-securejoin`, as runc has it).
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &Path) -> io::Result<PathBuf> {
    let mut left: Vec<OsString> = reversed(path).collect();
    // One for each part of the result that is there. A part can be there only if the one before is.
    let mut opened: Vec<OwnedFd> = Vec::new();
    let mut real: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            real.pop();
            opened.truncate(real.len());
            continue;
        }
        let is_there = opened.len() == real.len();
        let entry = match opened.last() {
            _ if !is_there => None,
            Some(directory) => entry(directory.as_fd(), &name)?,
            None => entry(root, &name)?,
        };
        match entry {
            Some(Entry::Link(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    real.clear();
                    opened.clear();
                }
                left.extend(reversed(&target));
            }
            Some(Entry::Other(file)) => {
                real.push(name);
                opened.push(file);
            }
            None => real.push(name),
        }
    }
    Ok(real.into_iter().collect())
}

/// The parts of a path, the last one first.
fn reversed(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// An entry of a directory.
enum Entry {
    Link(OsString),
    Other(OwnedFd),
}

fn entry(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Entry>> {
    let file = match open_entry(directory, name, OFlags::PATH) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::readlinkat(&file, "", Vec::new()) {
        Ok(target) => Ok(Some(Entry::Link(OsString::from_vec(target.into_bytes())))),
        // What it says of anything else.
        Err(Errno::NOENT | Errno::INVAL) => Ok(Some(Entry::Other(file))),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        (directory, root)
    }

    #[test]
    fn a_path_is_cleaned_by_name() {
        for (path, cleaned) in [
            ("/a/../v", "v"),
            ("a/b", "a/b"),
            ("/../../etc/./x/", "etc/x"),
            ("/", ""),
            ("..", ""),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path}");
        }
    }

    #[test]
    fn links_stay_inside_of_the_root() {
        let (directory, root) = root();
        let root = root.as_fd();
        fs::create_dir_all(directory.path().join("inside/below")).unwrap();
        for (link, target) in [
            ("absolute", "/inside"),
            ("above", "../../../../../inside/./below"),
            ("inside/back", "../above"),
            ("dangling", "/not/../there/file"),
            ("round", "round"),
        ] {
            symlink(target, directory.path().join(link)).unwrap();
        }
        let found = |path: &str| find(root, Path::new(path)).unwrap();
        for (path, real, is_there) in [
            ("absolute/below", "inside/below", true),
            ("above", "inside/below", true),
            ("inside/back", "inside/below", true),
            ("inside/back/new", "inside/below/new", false),
            // What is missing counts as a directory until the path is known.
            ("dangling", "there/file", false),
            ("dangling/../x", "there/x", false),
            ("", "", true),
        ] {
            let found = found(path);
            assert_eq!(found.real, Path::new(real), "{path}");
            assert_eq!(found.file.is_some(), is_there, "{path}");
        }
        let error = find(root, Path::new("round/x")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn what_is_made_has_no_links_on_its_way() {
        let (directory, root) = root();
        let outside = tempfile::tempdir().unwrap();
        let root = root.as_fd();
        make_file(root, Path::new("a/b/file")).unwrap();
        assert!(directory.path().join("a/b/file").is_file());
        make_directory(root, Path::new("a/c/d")).unwrap();
        assert!(directory.path().join("a/c/d").is_dir());
        make_directory(root, Path::new("")).unwrap();
        // A link that has been put there meanwhile.
        symlink(outside.path(), directory.path().join("a/out")).unwrap();
        assert!(make_directory(root, Path::new("a/out/x")).is_err());
        assert!(make_file(root, Path::new("a/out/x")).is_err());
        symlink(outside.path().join("y"), directory.path().join("a/y")).unwrap();
        assert!(make_file(root, Path::new("a/y")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
