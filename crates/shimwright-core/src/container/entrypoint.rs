//! What a container runs: found inside its root file system, classified by its content.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, Process};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::engine::artifact::MAGIC;
use crate::engine::workload::DEFAULT_FUNCTION;
use crate::error::{Context, Error};
use crate::policy;

/// File systems that show the kernel's state (`linux/magic.h`): proc, sysfs, cgroup v1 and v2, debugfs,
/// tracefs, securityfs, bpf, pstore, configfs, efivarfs, binfmt_misc, selinuxfs.
const KERNEL_FILE_SYSTEMS: [u32; 13] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
    0x4249_4e4d,
    0xf97c_ff8c,
];

/// The first argument of a process, `path#function`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entrypoint {
    /// The path as it was written, absolute, relative or a bare name.
    pub(crate) path: String,
    /// The exported function to call if the file is WebAssembly.
    pub(crate) function: String,
}

impl Entrypoint {
    /// Splits the first argument.
    pub(crate) fn parse(argument: &str) -> Self {
        match argument.rsplit_once('#') {
            Some((path, function)) if !path.is_empty() && !function.is_empty() => Self {
                path: path.to_owned(),
                function: function.to_owned(),
            },
            _ => Self {
                path: argument.to_owned(),
                function: DEFAULT_FUNCTION.to_owned(),
            },
        }
    }

    /// The places to look for the file, inside the root: as the shell would for a bare name,
    /// then the working directory.
    fn candidates(&self, path_variable: Option<&str>, cwd: &Path) -> Vec<PathBuf> {
        if self.path.contains('/') {
            return vec![cwd.join(&self.path)];
        }
        path_variable
            .unwrap_or_default()
            .split(':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| cwd.join(directory).join(&self.path))
            .chain([cwd.join(&self.path)])
            .collect()
    }
}

/// What was found at the entrypoint.
#[derive(Debug)]
pub(crate) enum Program {
    /// A WebAssembly binary, module or component.
    Wasm(File),
    /// Something the kernel can execute, by its path inside the root.
    Linux(PathBuf),
}

/// Finds the entrypoint of `process` in the root file system; `None` if there is no such file.
///
/// Links and `..` are resolved inside the root only (`openat2(2)`, `RESOLVE_IN_ROOT`). A file or
/// directory that the spec mounts from the node is looked into, as the sandbox is not built yet.
///
/// # Errors
///
/// `Invalid` if the file is neither WebAssembly nor executable.
pub(crate) fn find(
    root: &Path,
    mounts: &[Mount],
    process: &Process,
) -> Result<Option<(Entrypoint, Program)>, Error> {
    let argument = process.args().as_deref().unwrap_or_default().first();
    let argument = argument.ok_or_else(|| Error::invalid("the process has no arguments"))?;
    let env = process.env().as_deref().unwrap_or_default();
    let path_variable = env
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="));

    // A file whose own name holds a `#` wins over a function of another file.
    let whole = Entrypoint {
        path: argument.clone(),
        function: DEFAULT_FUNCTION.to_owned(),
    };
    let split = Entrypoint::parse(argument);
    for entrypoint in if whole == split {
        vec![whole]
    } else {
        vec![whole, split]
    } {
        for path in entrypoint.candidates(path_variable, process.cwd()) {
            if let Some(file) = open(root, mounts, &path)? {
                let program = classify(file, path)?;
                return Ok(Some((entrypoint, program)));
            }
        }
    }
    Ok(None)
}

/// Opens a regular file of a container for reading; `None` if there is none at that path.
///
/// # Errors
///
/// It is there and cannot be opened.
pub(super) fn open(root: &Path, mounts: &[Mount], path: &Path) -> Result<Option<File>, Error> {
    let (root, inside) = behind_mounts(root, mounts, path);
    open_in_root(&root, &inside)
}

/// Where a path of the container is found on the node before its mounts are made: below the
/// source of the last bind mount that covers it, or below the root.
fn behind_mounts(root: &Path, mounts: &[Mount], path: &Path) -> (PathBuf, PathBuf) {
    let path = normal(path);
    let covering = mounts
        .iter()
        .rev()
        .filter(|mount| policy::is_bind(mount))
        .find_map(|mount| {
            let below = path.strip_prefix(normal(mount.destination())).ok()?;
            Some((mount.source().clone()?, below.to_owned()))
        });
    covering.unwrap_or_else(|| (root.to_owned(), path))
}

/// The path without `.`, and without `..`, which ends at the root.
pub(in crate::container) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Opens a regular file; `None` if there is none at that path. An empty path is `root` itself.
fn open_in_root(root: &Path, path: &Path) -> Result<Option<File>, Error> {
    let cannot_open = || format!("open the entrypoint {}", path.display());
    let (root, path_inside) = match path.strip_prefix("/").unwrap_or(path) {
        inside if inside.as_os_str().is_empty() => {
            // A directory is no program, whatever names it: that of an exec is a link of `/proc`.
            if root.is_dir() {
                return Ok(None);
            }
            let parent = root.parent().unwrap_or(root);
            (parent, Path::new(root.file_name().unwrap_or_default()))
        }
        inside => (root, inside),
    };
    let root = match rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(root) => root,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error).with_context(cannot_open),
    };
    let found: OwnedFd = match rustix::fs::openat2(
        root,
        path_inside,
        // Opening a device has side effects, which the container has to be allowed to cause, and
        // opening a FIFO waits.
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error).with_context(cannot_open),
    };
    let kind = rustix::fs::fstat(&found).with_context(cannot_open)?.st_mode;
    if !rustix::fs::FileType::from_raw_mode(kind).is_file()
        || is_kernels(&found).with_context(cannot_open)?
    {
        return Ok(None);
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()));
    file.map(Some).with_context(cannot_open)
}

/// Whether a file is on a file system that shows the kernel's own state: reading some of its files
/// has side effects too, or waits.
pub(super) fn is_kernels(file: impl AsFd) -> io::Result<bool> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(KERNEL_FILE_SYSTEMS
        .iter()
        .any(|&known| i128::from(kind) == i128::from(known)))
}

fn classify(mut file: File, path: PathBuf) -> Result<Program, Error> {
    use std::os::unix::fs::PermissionsExt;
    let cannot_read = || format!("read the entrypoint {}", path.display());
    let mut start = [0; 4];
    let read = read_start(&mut file, &mut start).with_context(cannot_read)?;
    let executable = file
        .metadata()
        .with_context(cannot_read)?
        .permissions()
        .mode()
        & 0o111
        != 0;
    match &start[..read] {
        start if *start == MAGIC => Ok(Program::Wasm(file)),
        start if start.starts_with(b"\x7fELF") || start.starts_with(b"#!") => {
            if executable {
                return Ok(Program::Linux(path));
            }
            Err(Error::invalid(format!(
                "the entrypoint {} is not executable",
                path.display()
            )))
        }
        _ => Err(Error::invalid(format!(
            "the entrypoint {} is neither a WebAssembly binary nor an executable program",
            path.display()
        ))),
    }
}

fn read_start(file: &mut File, start: &mut [u8; 4]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < start.len() {
        match file.read(&mut start[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Looks for where the program of a process is, without opening it, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(mounts: &[Mount], process: &Process) {
    for argument in process.args().iter().flatten() {
        let entrypoint = Entrypoint::parse(argument);
        for path in entrypoint.candidates(Some("/bin:x::/usr/bin"), process.cwd()) {
            behind_mounts(Path::new("/root"), mounts, &path);
            let normal = normal(&path);
            let is_inside = |part| matches!(part, Component::RootDir | Component::Normal(_));
            assert!(normal.is_absolute() && normal.components().all(is_inside));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::ProcessBuilder;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8], mode: u32| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("app.wasm", b"\0asm\x01\0\0\0", 0o644);
        write("a#b", b"\0asm\x01\0\0\0", 0o644);
        write("bin/tool", b"\x7fELF", 0o755);
        write("bin/data", b"\x7fELF", 0o644);
        write("readme", b"text", 0o755);
        symlink("/app.wasm", root.path().join("absolute")).unwrap();
        symlink("../../../../etc/passwd", root.path().join("escape")).unwrap();
        root
    }

    fn look(argument: &str) -> Result<Option<(Entrypoint, Program)>, String> {
        let process = ProcessBuilder::default()
            .args([argument.to_owned()])
            .env(["PATH=/usr/bin:/bin".to_owned()])
            .cwd("/")
            .build()
            .unwrap();
        find(root().path(), &[], &process).map_err(|error| error.to_string())
    }

    #[test]
    fn a_module_in_a_volume_is_found_where_the_spec_mounts_it() {
        let volume = root();
        let bind = |source: &Path, destination: &str| {
            let mut mount = Mount::default();
            mount
                .set_source(Some(source.to_owned()))
                .set_destination(destination.into())
                .set_typ(Some("bind".into()));
            mount
        };
        let mounts = [
            bind(volume.path(), "/data"),
            bind(&volume.path().join("app.wasm"), "/single.wasm"),
        ];
        for argument in ["/data/app.wasm", "/data/../data/./app.wasm", "/single.wasm"] {
            let process = ProcessBuilder::default()
                .args([argument.to_owned()])
                .cwd("/")
                .build()
                .unwrap();
            let found = find(tempfile::tempdir().unwrap().path(), &mounts, &process).unwrap();
            assert!(matches!(found, Some((_, Program::Wasm(_)))), "{argument}");
        }
    }

    fn check_wasm(argument: &str, function: &str) {
        let (entrypoint, program) = look(argument).unwrap().unwrap();
        assert!(
            matches!(program, Program::Wasm(_)),
            "{argument}: {program:?}"
        );
        assert_eq!(entrypoint.function, function, "{argument}");
    }

    #[test]
    fn modules_are_found_by_path_name_and_link_inside_the_root() {
        check_wasm("/app.wasm", "_start");
        check_wasm("app.wasm", "_start");
        check_wasm("./app.wasm", "_start");
        check_wasm("/absolute", "_start");
        check_wasm("/../../app.wasm", "_start");
    }

    #[test]
    fn a_function_is_named_behind_a_hash() {
        check_wasm("/app.wasm#run", "run");
        check_wasm("/a#b", "_start");
        check_wasm("/a#b#c", "c");
    }

    #[test]
    fn programs_are_found_in_the_path_of_the_spec() {
        let (_, program) = look("tool").unwrap().unwrap();
        assert!(matches!(program, Program::Linux(path) if path == Path::new("/bin/tool")));
    }

    #[test]
    fn a_link_never_leaves_the_root() {
        assert!(look("/escape").unwrap().is_none());
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        assert!(look("/bin").unwrap().is_none());
        assert!(look("/missing").unwrap().is_none());
        assert_eq!(
            look("/bin/data").unwrap_err(),
            "the entrypoint /bin/data is not executable"
        );
        assert_eq!(
            look("/readme").unwrap_err(),
            "the entrypoint /readme is neither a WebAssembly binary nor an executable program"
        );
    }
}
