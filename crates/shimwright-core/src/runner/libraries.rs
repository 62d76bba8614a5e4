//! Engines that come as shared libraries.
//!
//! A shim is one static executable, and the engine's processes, runner and compiler, are executed
//! from a directory beside it: a dynamic linker, the libraries, and this same program linked to
//! them. A runner is executed inside the container's root, which has none of these. It starts with
//! the directory as its working directory, which is outside of that root, and leaves it before it
//! touches a guest. See `docs/decisions/0008-shared-libraries.md`.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use crate::engine::BoxError;
use crate::error::{Context, Error};
use crate::process::role;
use crate::runner::host::Host;
use crate::runner::protected;
use crate::sys;
use crate::sys::memory::Mapping;

/// The variable of the shim's environment that names the directory which is otherwise
/// `../lib/shimwright`, seen from the shim's executable.
pub(crate) const DIRECTORY_VARIABLE: &str = "SHIMWRIGHT_LIB_DIR";

/// The dynamic linker, by the name its ABI gives it.
const LOADER: &CStr = if cfg!(target_arch = "aarch64") {
    c"ld-linux-aarch64.so.1"
} else {
    c"ld-linux-x86-64.so.2"
};

/// Our own program, linked to the libraries beside it.
const PROGRAM: &CStr = c"./engine";

/// A file from which a dynamic linker loads whatever it names, before the program: in a container
/// the image would supply it. `cargo xtask` has the linker look beside the libraries instead.
const PRELOAD: &[u8] = b"/etc/ld.so.preload\0";

/// What the processes of an engine are executed from.
#[derive(Debug)]
pub(crate) enum Program {
    /// The file of the running program, wherever that is now: an upgrade may have replaced its
    /// path. Nothing can be written through it, see [`protected`].
    Own(OwnedFd),
    /// This program again, but linked to shared libraries.
    Linked(Directory),
}

impl Program {
    /// The program of a shim. Launcher process.
    ///
    /// # Errors
    ///
    /// `Invalid` with the remedy, if there are no libraries where they are expected.
    pub(crate) fn of(host: &Host) -> Result<Self, Error> {
        match &host.libraries {
            Some(libraries) => Ok(Self::Linked(libraries.open()?)),
            None => {
                let file = protected::running().context("open our own program")?;
                Ok(Self::Own(file))
            }
        }
    }

    /// The program, to be executed outside of any container.
    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Own(_) => Command::new("/proc/self/exe"),
            Self::Linked(directory) => directory.command(),
        }
    }

    /// What [`exec`](Self::exec) executes from.
    pub(crate) fn descriptor(&self) -> RawFd {
        match self {
            Self::Own(file) => file.as_raw_fd(),
            Self::Linked(directory) => directory.descriptor.as_raw_fd(),
        }
    }

    /// Replaces this process, which may be inside a container, by the program; returns only on
    /// failure.
    pub(crate) fn exec(&self, args: &[CString], env: &[CString]) -> io::Error {
        match self {
            Self::Own(file) => sys::exec::exec_fd(file.as_fd(), args, env),
            Self::Linked(directory) => match directory.exec(args, env) {
                Ok(never) => match never {},
                Err(error) => error,
            },
        }
    }
}

/// Where a shim's libraries are, and what to do if they are not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Libraries {
    pub(crate) name: &'static str,
    pub(crate) remedy: &'static str,
}

impl Libraries {
    /// Finds the directory. Launcher process.
    ///
    /// # Errors
    ///
    /// `Invalid`, with the directory, what is wrong with it, and the remedy.
    pub(crate) fn open(&self) -> Result<Directory, Error> {
        let path = directory().context("find our own program")?.join(self.name);
        Directory::open(&path).map_err(|error| {
            Error::invalid(format!(
                "cannot use the engine's libraries in {}: {error}; {}",
                path.display(),
                self.remedy
            ))
        })
    }
}

/// The directory of the libraries of all engines. What containerd executes by its path tells the
/// shim process, which is executed otherwise.
pub(crate) fn directory() -> io::Result<PathBuf> {
    if let Some(named) = std::env::var_os(DIRECTORY_VARIABLE).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let own = std::fs::read_link("/proc/self/exe")?;
    // An upgrade may have replaced it: its directory is still the same.
    let prefix = own.parent().and_then(Path::parent);
    let prefix = prefix.ok_or(io::ErrorKind::NotFound)?;
    Ok(prefix.join("lib/shimwright"))
}

/// A directory with a dynamic linker, a program, and the libraries that the program needs.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    descriptor: OwnedFd,
}

impl Directory {
    /// Opens it through a mount of its own: a process in a container has it as its working directory
    /// for a while, and must neither write to it nor find what is above it.
    fn open(path: &Path) -> Result<Self, BoxError> {
        let descriptor = sys::mount::read_only_clone(path, false)?;
        let file = |name: &CStr| -> Result<File, BoxError> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(&descriptor, name, flags, Mode::empty()) {
                Ok(file) => Ok(File::from(file)),
                Err(error) => Err(format!("{}: {error}", name.to_string_lossy()).into()),
            }
        };
        file(PROGRAM)?;
        let loader = Mapping::of_file(file(LOADER)?.as_fd())?;
        if holds(loader.as_ref(), PRELOAD) {
            return Err(format!(
                "{} would load what an image names in /etc/ld.so.preload",
                LOADER.to_string_lossy()
            )
            .into());
        }
        Ok(Self {
            path: path.to_owned(),
            descriptor,
        })
    }

    fn command(&self) -> Command {
        let path = |name: &CStr| self.path.join(OsStr::from_bytes(name.to_bytes()));
        let mut command = Command::new(path(LOADER));
        command
            .args(["--inhibit-cache", "--library-path"])
            .arg(&self.path)
            .arg(path(PROGRAM));
        command
    }

    fn exec(&self, args: &[CString], env: &[CString]) -> io::Result<Infallible> {
        let (name, rest) = args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // The way back, which is kept over `exec`. Taken here, it needs neither a path nor a
        // permission later.
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let back = rustix::fs::open(c".", flags, Mode::empty())?;
        rustix::process::fchdir(&self.descriptor)?;
        let linker = [
            name,
            c"--inhibit-cache",
            c"--library-path",
            c".",
            c"--argv0",
            name,
            PROGRAM,
        ];
        let mut all = linker.map(CStr::to_owned).to_vec();
        all.extend_from_slice(rest);
        let mut env = env.to_vec();
        env.push(CString::new(format!(
            "{}={}",
            role::WORKING_DIRECTORY,
            back.as_raw_fd()
        ))?);
        Err(sys::exec::exec_in(
            self.descriptor.as_fd(),
            LOADER,
            &all,
            &env,
        ))
    }
}

/// Leaves the directory that the program of this process was executed in, for the working
/// directory of the container. Runner process: from here on nothing outside of the container's root
/// can be reached.
///
/// # Errors
///
/// That this process was not executed so.
pub(crate) fn leave() -> Result<(), BoxError> {
    let number = std::env::var(role::WORKING_DIRECTORY).ok();
    let number = number.and_then(|number| number.parse().ok());
    let number = number.ok_or("the runner has not been told its working directory")?;
    rustix::process::fchdir(sys::fd::inherited(number)?)?;
    // It would be called like the dynamic linker.
    Ok(rustix::thread::set_name(c"engine")?)
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .any(|(at, byte)| Some(byte) == wanted.first() && bytes[at..].starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(loader: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &CStr| directory.path().join(name.to_str().unwrap());
        std::fs::write(file(PROGRAM), "").unwrap();
        std::fs::write(file(LOADER), loader).unwrap();
        directory
    }

    #[track_caller]
    fn check_refusal(path: &Path, reasons: &[&str]) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let error = Directory::open(path).unwrap_err().to_string();
        for reason in reasons {
            assert!(error.contains(reason), "{name}: {error}");
        }
    }

    #[test]
    fn a_directory_is_complete_or_names_what_is_missing() {
        let directory = directory(b"a dynamic linker");
        Directory::open(directory.path()).unwrap();
        std::fs::remove_file(directory.path().join("engine")).unwrap();
        check_refusal(directory.path(), &["engine", "No such file"]);
        check_refusal(Path::new("/nowhere/at/all"), &["No such file"]);
    }

    #[test]
    fn a_linker_that_an_image_could_steer_is_refused() {
        let directory = directory(b"ELF/etc/ld.so.cache\0/etc/ld.so.preload\0more");
        check_refusal(directory.path(), &["/etc/ld.so.preload"]);
    }

    #[test]
    fn without_libraries_the_error_has_the_remedy() {
        let libraries = Libraries {
            name: "none-1",
            remedy: "make them",
        };
        let error = libraries.open().unwrap_err().to_string();
        assert!(error.contains("lib/shimwright/none-1"), "{error}");
        assert!(error.ends_with("; make them"), "{error}");
    }
}
