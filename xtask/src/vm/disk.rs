//! The disk of the emulated machine: a small Debian with a C compiler, and the files to try.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result, error};
use shimwright_testenv::process;

const SUITE: &str = "bookworm";

/// What runs the tests: a kernel for machines like this one, what `init.sh` calls, and the C
/// compiler with which tests make their programs.
const PACKAGES: [&str; 5] = [
    "linux-image-cloud-amd64",
    "busybox-static",
    "coreutils",
    "gcc",
    "libc6-dev",
];

/// The kernel's modules that tests need, with the names by which `init.sh` inserts them: file systems.
const MODULES: [(&str, &str); 2] = [
    ("overlay.ko", "kernel/fs/overlayfs/overlay.ko"),
    ("fuse.ko", "kernel/fs/fuse/fuse.ko"),
];

/// What these packages bring that nothing in the machine needs.
const NEEDLESS: [&str; 4] = ["PACKAGES", "boot", "lib/modules", "usr/share"];

/// Directories for file systems and for what is made while the machine runs.
const EMPTY: [&str; 6] = ["dev", "etc", "proc", "run", "sys", "tmp"];

/// Where the shims and the program that tries them are.
pub(super) const PROGRAMS: &str = "usr/local/bin";

/// How the name of a kernel begins; its version follows.
const KERNEL: &str = "vmlinuz-";

const INIT: &str = include_str!("init.sh");

/// More than enough: what is not written takes no space.
const SIZE: &str = "4G";

const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// A disk that is removed when dropped, and the kernel that starts from it.
pub(super) struct Disk {
    directory: tempfile::TempDir,
    kernel: PathBuf,
}

impl Disk {
    /// Makes a disk with files, each at its place, from which a machine executes a command.
    pub(super) fn make(files: &[(PathBuf, PathBuf)], command: &[String]) -> Result<Self> {
        let system = debian::unpack_with_dependencies(SUITE, "vm", &PACKAGES)?;
        debian::install_command("mke2fs", "e2fsprogs")?;
        println!("==> making the disk of the emulated machine");
        // Beside what is unpacked, as only there files can be linked instead of copied.
        let directory = tempfile::Builder::new()
            .prefix("disk-")
            .tempdir_in(system.parent().unwrap_or(&system))?;
        let kernel = kernel(&system)?;
        let disk = Self { directory, kernel };
        let root = disk.directory.path().join("root");
        disk.copy_system(&system, &root)?;
        for (from, to) in files {
            place(from, &root.join(to))?;
        }
        fs::write(root.join("command"), script(command))?;
        let init = root.join("init");
        fs::write(&init, INIT)?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        let mut format = Command::new("mke2fs");
        format.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]);
        format.arg(&root).arg(disk.image()).arg(SIZE);
        process::run(format, DEADLINE)?.success()?;
        fs::remove_dir_all(&root)?;
        Ok(disk)
    }

    /// Makes a root of the packages, and what is missing because they have not been configured.
    fn copy_system(&self, system: &Path, root: &Path) -> Result<()> {
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--link"]).arg(system).arg(root);
        process::run(copy, DEADLINE)?.success()?;
        let version = self.kernel.file_name().and_then(|name| name.to_str());
        let version = version.and_then(|name| name.strip_prefix(KERNEL));
        let modules = system.join("lib/modules").join(version.unwrap_or_default());
        for (name, place_of) in MODULES {
            place(&modules.join(place_of), &root.join(name))?;
        }
        for name in NEEDLESS {
            let path = root.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.context(format_args!("remove {}", path.display()))?;
        }
        for name in EMPTY {
            fs::create_dir_all(root.join(name))?;
        }
        for (name, target) in [
            ("usr/bin/cc", "gcc"),
            ("bin/sh", "busybox"),
            ("bin/nsenter", "busybox"),
        ] {
            let path = root.join(name);
            if path.symlink_metadata().is_err() {
                std::os::unix::fs::symlink(target, path)?;
            }
        }
        Ok(())
    }

    /// The file with the content of the disk.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    pub(super) fn kernel(&self) -> &Path {
        &self.kernel
    }
}

/// Puts a file or a directory with all it holds at a place.
fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--no-target-directory"]);
    copy.arg(from).arg(to);
    process::run(copy, DEADLINE)?.success()?;
    Ok(())
}

/// The kernel among unpacked packages.
fn kernel(system: &Path) -> Result<PathBuf> {
    let boot = system.join("boot");
    let entries = fs::read_dir(&boot).context(format_args!("read {}", boot.display()))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    let name = names.find(|name| name.to_string_lossy().starts_with(KERNEL));
    let remedy = || {
        error!(
            "there is no kernel below {}: remove that directory and try again",
            system.display()
        )
    };
    name.map(|name| boot.join(name)).ok_or_else(remedy)
}

/// A script for a shell that executes a command of exactly these words.
fn script(command: &[String]) -> String {
    let words = command
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    format!("exec {}\n", words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_the_words_of_its_command() {
        let words = ["printf", "%s|", "it's", "a b", "$x", "", "'"].map(str::to_owned);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script(&words));
        let written = process::run(shell, Duration::from_secs(5)).unwrap().stdout;
        assert_eq!(written, "it's|a b|$x||'|");
    }
}
