//! `cargo xtask wasmedge`: what the WasmEdge shim needs beside it, a directory with libwasmedge,
//! everything that it depends on, and the program that is linked to it.
//!
//! Debian 12 has no libwasmedge, and that of a later Debian needs its C library and dynamic linker:
//! all come from one suite, into a directory of their own. Nothing is installed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process;

use crate::cargo;

/// The suite whose libwasmedge is the version that the bindings need.
const SUITE: &str = "forky";
const PACKAGE: &str = "libwasmedge-dev";

const CRATE: &str = "shimwright-wasmedge";
const SHIM: &str = "containerd-shim-wasmedge-v1";

/// The directory's name, as `LIBRARIES` of the crate.
const NAME: &str = concat!("wasmedge-", env!("CARGO_PKG_VERSION"));

/// What a dynamic linker loads libraries from that no program asks for, and where ours looks
/// instead: in its working directory, which is that of the libraries when a container starts. In the
/// container's root it would be the image's.
const PRELOAD: &[u8; 19] = b"/etc/ld.so.preload\0";
const NO_PRELOAD: &[u8; 19] = b"./ld.so.preload\0\0\0\0";

const QUERY_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Make the directory below DIRECTORY/lib instead of beside the shim that cargo builds
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "test")]
    prefix: Option<PathBuf>,
    /// Run the tests of that engine, with these arguments for cargo
    #[arg(long, value_name = "ARGS", num_args = 0.., allow_hyphen_values = true)]
    test: Option<Vec<String>>,
    /// What follows `--`, for the tests
    #[arg(last = true, requires = "test")]
    rest: Vec<String>,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    debian::install_missing()?;
    if let Some(prefix) = &options.prefix {
        install(prefix)?;
    } else if let Some(args) = &options.test {
        process::show(
            tests(&args_for_cargo(args, &options.rest))?,
            cargo::BUILD_DEADLINE,
        )?;
    } else {
        println!("==> the libraries are in {}", build()?.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn args_for_cargo<'a>(args: &'a [String], rest: &'a [String]) -> Vec<&'a str> {
    let mut words: Vec<_> = args.iter().map(String::as_str).collect();
    if !rest.is_empty() {
        words.push("--");
        words.extend(rest.iter().map(String::as_str));
    }
    words
}

/// Makes the directory below `PREFIX/lib`.
pub(crate) fn install(prefix: &Path) -> Result<()> {
    let libraries = Libraries::fetch()?;
    let place = prefix.join("lib/shimwright");
    let directory = libraries.lay_out(&libraries.engine()?, &place)?;
    println!("==> the libraries are in {}", directory.display());
    Ok(())
}

/// Makes the directory where the shim that cargo builds looks for it, and returns its path.
pub(crate) fn build() -> Result<PathBuf> {
    let libraries = Libraries::fetch()?;
    let engine = libraries.engine()?;
    // `<own target directory>/<triple>/release/<name>`; the shim has the same place in cargo's.
    let triple = engine.ancestors().nth(2).and_then(Path::file_name);
    let triple = triple.ok_or_else(|| error!("{} is in an odd place", engine.display()))?;
    let place = cargo::target_directory()?
        .join(triple)
        .join("lib/shimwright");
    libraries.lay_out(&engine, &place)
}

/// The tests that take the library, or those that arguments for cargo choose.
pub(crate) fn tests(args: &[&str]) -> Result<Command> {
    let libraries = Libraries::fetch()?;
    let mut command = libraries.cargo(&["test"])?;
    if args.is_empty() {
        let both = ["wasmedge-conformance", "wasmedge-engine"];
        command.args(both.iter().flat_map(|name| ["--test", name]));
    }
    // They are executed by the dynamic linker of the libraries, which finds these so.
    command.arg("--config").arg(format!(
        "target.'cfg(all())'.runner = ['env', 'LD_LIBRARY_PATH={}']",
        libraries.directory.display()
    ));
    command.args(args);
    Ok(command)
}

/// Clippy on what is only compiled when linked to the library.
pub(crate) fn lints() -> Result<Command> {
    let mut command = Libraries::fetch()?.cargo(&["clippy"])?;
    command.args(["--all-targets", "--", "-D", "warnings"]);
    Ok(command)
}

/// Debian's libraries, unpacked.
struct Libraries {
    prefix: PathBuf,
    /// The one with the libraries.
    directory: PathBuf,
    loader: PathBuf,
}

impl Libraries {
    fn fetch() -> Result<Self> {
        let prefix = debian::unpack_with_dependencies(SUITE, PACKAGE, &[PACKAGE])?;
        let arch = std::env::consts::ARCH;
        let (directory, loader) = match arch {
            "x86_64" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
            "aarch64" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
            other => return Err(error!("Debian has no libwasmedge for {other}")),
        };
        let directory = prefix.join("usr/lib").join(directory);
        let loader = directory.join(loader);
        ensure!(
            loader.exists() && directory.join("libwasmedge.so").exists(),
            "{} lacks libwasmedge or its dynamic linker: remove it and try again",
            prefix.display()
        );
        Ok(Self {
            prefix,
            directory,
            loader,
        })
    }

    /// A command of cargo for the crate, linked to the libraries instead of statically.
    fn cargo(&self, command: &[&str]) -> Result<Command> {
        let target = cargo::target_directory()?.join("wasmedge");
        // A linker that searches the whole directory would take its C library too.
        let link = target.join("link");
        fs::create_dir_all(&link).context(format_args!("create {}", link.display()))?;
        let library = link.join("libwasmedge.so");
        let _ = fs::remove_file(&library);
        std::os::unix::fs::symlink(self.directory.join("libwasmedge.so"), &library)
            .context(format_args!("create {}", library.display()))?;
        let mut cargo = cargo::cargo(command);
        cargo
            .args(["--release", "--package", CRATE, "--target-dir"])
            .arg(&target)
            .env("WASMEDGE_INCLUDE_DIR", self.prefix.join("usr/include"))
            .env("WASMEDGE_LIB_DIR", &link)
            // Instead of the flags in `.cargo/config.toml`. Tests are executed with this linker;
            // the engine is executed by one that is named.
            .env(
                "RUSTFLAGS",
                format!(
                    "--cfg wasmedge_library -C link-arg=-Wl,--allow-shlib-undefined \
                     -C link-arg=-Wl,--dynamic-linker={}",
                    self.loader.display()
                ),
            )
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        Ok(cargo)
    }

    /// Builds the program that is linked to the libraries, and returns its path.
    fn engine(&self) -> Result<PathBuf> {
        println!("==> building the engine of {SHIM}");
        let mut command = self.cargo(&["build"])?;
        command.args(["--bin", SHIM]);
        let built = cargo::build_by(command)?;
        Ok(cargo::directory_of(&[SHIM], &built)?.join(SHIM))
    }

    /// Makes the directory in `place`, which has the name that the shim expects, and returns its
    /// path.
    fn lay_out(&self, engine: &Path, place: &Path) -> Result<PathBuf> {
        let target = place.join(NAME);
        let aside = place.join(format!("{NAME}.{}", std::process::id()));
        let made = self.fill(engine, &aside);
        let moved = made.and_then(|()| {
            // What runs keeps the files it has opened.
            let _ = fs::remove_dir_all(&target);
            fs::rename(&aside, &target).context(format_args!("create {}", target.display()))
        });
        if moved.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        moved.map(|()| target)
    }

    fn fill(&self, engine: &Path, directory: &Path) -> Result<()> {
        let plugins = directory.join("plugin");
        fs::create_dir_all(&plugins).context(format_args!("create {}", plugins.display()))?;
        for (name, path) in self.needed(engine)? {
            copy(&path, &directory.join(name), 0o644)?;
        }
        copy(engine, &directory.join("engine"), 0o755)?;
        let name = self.loader.file_name().unwrap_or_default();
        let loader = fs::read(&self.loader).context(format_args!("read {}", self.loader.display()));
        let path = directory.join(name);
        fs::write(&path, without_preload(loader?)?)
            .context(format_args!("write {}", path.display()))?;
        for (path, mode) in [(&*path, 0o755), (directory, 0o755), (&plugins, 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// The libraries that a program is linked to, but for the dynamic linker: names and files.
    fn needed(&self, program: &Path) -> Result<BTreeMap<String, PathBuf>> {
        let mut list = Command::new(&self.loader);
        list.args(["--inhibit-cache", "--library-path"])
            .arg(&self.directory)
            .arg("--list")
            .arg(program);
        let list = process::run(list, QUERY_DEADLINE)?.success()?;
        ensure!(
            !list.contains("not found"),
            "a library of {} is not in {}:\n{list}",
            program.display(),
            self.directory.display()
        );
        let needed: BTreeMap<_, _> = list.lines().filter_map(found_library).collect();
        let foreign = needed
            .values()
            .find(|path| !path.starts_with(&self.directory));
        match foreign {
            Some(path) => Err(error!("{} is not of Debian {SUITE}", path.display())),
            None => Ok(needed),
        }
    }
}

/// The name and the file in a line such as `libz.so.1 => /usr/lib/libz.so.1 (0x7f00)`.
fn found_library(line: &str) -> Option<(String, PathBuf)> {
    let (name, rest) = line.trim().split_once(" => ")?;
    let (path, _) = rest.rsplit_once(" (")?;
    // The dynamic linker may be listed by a path.
    (!name.contains('/')).then(|| (name.to_owned(), PathBuf::from(path)))
}

/// Copies a file that everybody may read.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, to).context(format_args!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A dynamic linker that loads nothing but what programs ask for.
fn without_preload(mut loader: Vec<u8>) -> Result<Vec<u8>> {
    let places: Vec<usize> = loader
        .windows(PRELOAD.len())
        .enumerate()
        .filter_map(|(at, bytes)| (bytes == PRELOAD).then_some(at))
        .collect();
    let [at] = places[..] else {
        return Err(error!(
            "the dynamic linker names /etc/ld.so.preload {} times instead of once",
            places.len()
        ));
    };
    loader[at..at + PRELOAD.len()].copy_from_slice(NO_PRELOAD);
    Ok(loader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_given_what_follows() {
        let words = ["--test", "--test", "x", "--no-run", "--", "--markdown", "y"];
        let options = crate::parse::<Options>(&words).unwrap();
        let args = options.test.unwrap();
        assert_eq!(args_for_cargo(&args, &options.rest), words[1..]);
        let options = crate::parse::<Options>(&["--test"]).unwrap();
        assert_eq!(options.test, Some(Vec::new()));
        assert!(crate::parse::<Options>(&["--prefix"]).is_err());
        assert!(crate::parse::<Options>(&["x"]).is_err());
    }

    #[test]
    fn libraries_are_read_from_the_list() {
        let list = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibz.so.1 => /p/lib/libz.so.1 (0x00007f00)\n\
            \t/p/ld-linux-x86-64.so.2 => /p/lib/ld-linux-x86-64.so.2 (0x00007f01)\n";
        let found: Vec<_> = list.lines().filter_map(found_library).collect();
        assert_eq!(
            found,
            [("libz.so.1".to_owned(), PathBuf::from("/p/lib/libz.so.1"))]
        );
    }

    #[test]
    fn the_linker_looks_beside_the_libraries_for_what_to_preload() {
        let changed = without_preload(b"a\0/etc/ld.so.preload\0b".to_vec()).unwrap();
        assert_eq!(changed, b"a\0./ld.so.preload\0\0\0\0b");
        assert!(without_preload(b"nothing".to_vec()).is_err());
    }
}
