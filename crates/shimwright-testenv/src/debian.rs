//! Debian packages: those the machine lacks, and those unpacked into a cache without installing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Context, Result, ensure, error};
use crate::process;

const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(20 * 60);
const QUERY_DEADLINE: Duration = Duration::from_secs(60);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What building and testing need; the compiler's runtime library comes on top.
const PACKAGES: [&str; 11] = [
    "ca-certificates",
    "clang",
    "debian-archive-keyring",
    "gcc",
    "libc6-dev",
    // For the bindings of libwasmedge.
    "libclang-dev",
    "libprotobuf-dev",
    "libseccomp-dev",
    "lld",
    "protobuf-compiler",
    "wasi-libc",
];

/// Installs what is missing, and nothing else.
pub fn install_missing() -> Result<()> {
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "this command installs packages on Debian 12 and 13 only; elsewhere install clang with lld, \
         a WASI libc, protoc and a static libseccomp yourself"
    );
    let mut missing = missing_of(&PACKAGES.map(str::to_owned))?;
    if missing.iter().all(|package| package != "clang") {
        missing.extend(missing_of(&[compiler_runtime()?])?);
        if missing.is_empty() {
            println!("==> all Debian packages are there");
            return Ok(());
        }
    }
    let remedy = format!(
        "as root: apt-get update && apt-get install {}",
        missing.join(" ")
    );
    ensure!(
        is_root(),
        "packages are missing and installing them needs root; {remedy}"
    );
    println!("==> installing {}", missing.join(" "));
    if install(&missing).is_err() {
        // The lists are absent or older than the archive: that is the only reason to update them.
        update().and_then(|()| install(&missing)).map_err(|err| {
            error!("cannot install packages; is the machine online? Try {remedy}\n{err}")
        })?;
    }
    // Which version the runtime library must have is known only after clang is there.
    let runtime = missing_of(&[compiler_runtime()?])?;
    if runtime.is_empty() {
        Ok(())
    } else {
        install(&runtime)
    }
}

/// Installs the package that has a command, unless somebody else has installed that command.
pub fn install_command(command: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|directory| directory.join(command).is_file()) {
        return Ok(());
    }
    let remedy = format!("there is no {command}; as root: apt-get install {package}");
    ensure!(is_root(), "{remedy}");
    println!("==> installing {package}");
    let package = [package.to_owned()];
    install(&package)
        .or_else(|_| update().and_then(|()| install(&package)))
        .map_err(|err| error!("{remedy}\n{err}"))
}

/// Whether this process may install packages, mount, and start containerd.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails with the remedy unless run by root.
pub fn require_root(what: &str) -> Result<()> {
    ensure!(
        is_root(),
        "{what} needs root, for it starts containers: run it in a root shell (`sudo -s`), or with \
         `sudo env \"PATH=$PATH\" cargo xtask ...`"
    );
    Ok(())
}

/// The packages of `wanted` that are not installed.
fn missing_of(wanted: &[String]) -> Result<Vec<String>> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(wanted);
    // It also fails because of packages it does not know, which is what we ask about.
    let known = process::run(query, QUERY_DEADLINE)?.stdout;
    let installed = |package: &String| {
        known
            .lines()
            .any(|line| line.strip_prefix("installed ") == Some(package))
    };
    Ok(wanted
        .iter()
        .filter(|package| !installed(package))
        .cloned()
        .collect())
}

/// The package of compiler-rt for WebAssembly, which must match clang's major version.
fn compiler_runtime() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Depends}", "clang"]);
    let depends = process::run(query, QUERY_DEADLINE)?.success()?;
    let major = depends
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .find_map(|word| word.strip_prefix("clang-"))
        .ok_or_else(|| error!("cannot tell clang's version from its dependencies `{depends}`"))?;
    Ok(format!("libclang-rt-{major}-dev-wasm32"))
}

fn install(packages: &[String]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "-qq", "--no-install-recommends"])
        .args(packages);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    process::show(apt, DOWNLOAD_DEADLINE)
}

fn update() -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["update", "-qq"]);
    process::show(apt, DOWNLOAD_DEADLINE)
}

/// Where downloads and builds are kept between runs.
pub fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
    let base = base
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cache")));
    Ok(base
        .ok_or_else(|| error!("neither XDG_CACHE_HOME nor HOME is set"))?
        .join("shimwright"))
}

/// Unpacks packages of a Debian suite into the cache, without installing them, and returns the
/// directory. apt verifies the archive's signature.
pub fn unpack(suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let target = cache()?.join("containerd").join(suite);
    if has_unpacked(&target, packages) {
        return Ok(target);
    }
    println!("==> downloading {} of Debian {suite}", packages.join(", "));
    let apt = PrivateApt::new(suite)?;
    apt.update()?;
    extract(&apt.download(packages)?, &target)?;
    Ok(target)
}

/// Unpacks packages of a Debian suite into the cache, below `name`, with everything that they depend
/// on, down to the C library, and returns the directory. apt verifies the archive's signature.
pub fn unpack_with_dependencies(suite: &str, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let target = cache()?.join(name).join(suite);
    if has_unpacked(&target, packages) {
        return Ok(target);
    }
    println!(
        "==> downloading {} of Debian {suite}, and what they need",
        packages.join(", ")
    );
    let apt = PrivateApt::new(suite)?;
    apt.update()?;
    extract(&apt.download_with_dependencies(packages)?, &target)?;
    Ok(target)
}

/// The newest runc that Debian has, unpacked into the cache with the C library that it is linked to,
/// which may be newer than that of this machine.
pub fn newest_runc() -> Result<PathBuf> {
    unpack_with_dependencies("sid", "runc", &["runc"])
}

/// Whether all of these were unpacked into a directory, which [`extract`] tells.
fn has_unpacked(target: &Path, packages: &[&str]) -> bool {
    let unpacked = fs::read_to_string(target.join("PACKAGES")).unwrap_or_default();
    let has = |package: &&str| {
        unpacked
            .lines()
            .any(|line| line.split('_').next() == Some(package))
    };
    packages.iter().all(has)
}

/// Extracts archives into a directory, and lists them there.
fn extract(archives: &[PathBuf], target: &Path) -> Result<()> {
    fs::create_dir_all(target).context(format_args!("create {}", target.display()))?;
    let mut lines = Vec::new();
    for archive in archives {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--extract").arg(archive).arg(target);
        process::run(dpkg, DOWNLOAD_DEADLINE)?.success()?;
        lines.extend(
            archive
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    // Written last: a directory without it was interrupted and is filled again.
    let manifest = target.join("PACKAGES");
    fs::write(&manifest, lines.join("\n")).context(format_args!("write {}", manifest.display()))
}

/// apt with lists, cache and sources of its own, beside the machine's settings for the network.
struct PrivateApt {
    directory: tempfile::TempDir,
    suite: String,
}

impl PrivateApt {
    fn new(suite: &str) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: install the package debian-archive-keyring"
        );
        let directory = tempfile::Builder::new()
            .prefix("shimwright-apt-")
            .tempdir()?;
        for name in ["lists/partial", "archives/partial", "cache"] {
            fs::create_dir_all(directory.path().join(name))?;
        }
        fs::write(directory.path().join("status"), "")?;
        let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(directory.path().join("sources.list"), source)?;
        Ok(Self {
            directory,
            suite: suite.to_owned(),
        })
    }

    fn update(&self) -> Result<()> {
        let mut apt = self.apt();
        apt.args(["-qq", "update"]);
        process::run(apt, DOWNLOAD_DEADLINE)?
            .success()
            .context(format_args!(
                "get the package lists of Debian {}; is the machine online?",
                self.suite
            ))?;
        Ok(())
    }

    fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let archives = self.directory.path().join("archives");
        let mut apt = self.apt();
        apt.args(["-qq", "download"])
            .args(packages)
            .current_dir(&archives);
        process::run(apt, DOWNLOAD_DEADLINE)?.success()?;
        let found = self.downloaded()?;
        ensure!(
            found.len() >= packages.len(),
            "apt-get has not downloaded {packages:?}"
        );
        Ok(found)
    }

    fn download_with_dependencies(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        // Nothing is installed in its eyes.
        let mut apt = self.apt();
        apt.args([
            "-qq",
            "--yes",
            "--no-install-recommends",
            "--download-only",
            "install",
        ])
        .args(packages);
        process::run(apt, DOWNLOAD_DEADLINE)?.success()?;
        let found = self.downloaded()?;
        ensure!(
            found.len() >= packages.len(),
            "apt-get has not downloaded {packages:?}"
        );
        Ok(found)
    }

    fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.directory.path().join("archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn apt(&self) -> Command {
        let own = |name: &str| self.directory.path().join(name).display().to_string();
        let options = [
            ("Dir::Etc::SourceList", own("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::Etc::Preferences", "/dev/null".to_owned()),
            ("Dir::Etc::PreferencesParts", "/dev/null".to_owned()),
            ("Dir::State", own("")),
            ("Dir::State::Lists", own("lists")),
            ("Dir::State::status", own("status")),
            ("Dir::Cache", own("cache")),
            ("Dir::Cache::archives", own("archives")),
            // The sandbox user of apt may not read our directory.
            ("APT::Sandbox::User", "root".to_owned()),
            // A mirror that lags behind sid serves a release file that has expired; its signature
            // is verified all the same.
            (
                "Acquire::Check-Valid-Until",
                (self.suite != "sid").to_string(),
            ),
            ("Acquire::Retries", "3".to_owned()),
            // The machine's own database is none of its business.
            ("Debug::NoLocking", "1".to_owned()),
        ];
        let mut apt = Command::new("apt-get");
        for (name, value) in options {
            apt.arg("-o").arg(format!("{name}={value}"));
        }
        apt
    }
}

/// The Debian archive that this machine itself uses.
fn mirror() -> Result<String> {
    let ask = || -> Result<Option<String>> {
        let mut apt = Command::new("apt-get");
        apt.args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ]);
        let targets = process::run(apt, QUERY_DEADLINE)?.success()?;
        Ok(targets
            .lines()
            .find_map(|line| line.strip_prefix("Debian "))
            .map(str::to_owned))
    };
    if let Some(mirror) = ask()? {
        return Ok(mirror);
    }
    // The label is known only after the lists have been fetched once.
    update()?;
    ask()?.ok_or_else(|| error!("there is no Debian archive among this machine's apt sources"))
}
