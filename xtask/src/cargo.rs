//! Running cargo, always in the release profile: the engines are compiled once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process::{self, Process};
use shimwright_testenv::workspace;

/// Long enough for a cold build on a slow machine; a build that takes longer hangs.
pub(crate) const BUILD_DEADLINE: Duration = Duration::from_secs(90 * 60);

/// The workspace of the program that calls containerd as a kubelet does.
pub(crate) const CRI_CLIENT: &str = "crates/shimwright-e2e/cri/Cargo.toml";

/// The workspace of the targets for cargo-fuzz.
pub(crate) const FUZZ_TARGETS: &str = "fuzz/Cargo.toml";

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let command = cargo(&["metadata", "--format-version=1", "--no-deps"]);
    let text = process::run(command, Duration::from_secs(5 * 60))?.success()?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).context("read cargo's metadata")?;
    let directory = metadata["target_directory"].as_str();
    directory
        .map(PathBuf::from)
        .ok_or_else(|| error!("cargo has not told its target directory"))
}

/// The cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace::root());
    // What `cargo run` sets for us would make build scripts run again.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
    ] {
        command.env_remove(name);
    }
    command
}

/// Builds the executables called `names` and returns the directory that holds them.
///
/// `--workspace` makes cargo choose the same features of shared dependencies as for the tests, so
/// that nothing is compiled twice.
pub(crate) fn build_binaries(names: &[&str]) -> Result<PathBuf> {
    let mut args = vec!["build", "--release", "--workspace"];
    args.extend(names.iter().flat_map(|name| ["--bin", name]));
    directory_of(names, &build(&args)?)
}

/// Builds the program that calls containerd as a kubelet does, which is not in this workspace, and
/// returns its path.
pub(crate) fn build_cri_client() -> Result<PathBuf> {
    const NAME: &str = "shimwright-cri";
    let built = build(&["build", "--release", "--manifest-path", CRI_CLIENT])?;
    Ok(directory_of(&[NAME], &built)?.join(NAME))
}

/// The one directory that holds the executables called `names`.
pub(crate) fn directory_of(names: &[&str], built: &[PathBuf]) -> Result<PathBuf> {
    let mut directory = None;
    for name in names {
        let path = built
            .iter()
            .find(|path| path.file_name().is_some_and(|file| file == *name));
        let path = path.ok_or_else(|| error!("cargo has not built {name}"))?;
        directory = path.parent().map(Path::to_path_buf);
    }
    directory.ok_or_else(|| error!("there is nothing to build"))
}

/// Builds, with cargo's progress on the terminal, and returns the executables.
pub(crate) fn build(args: &[&str]) -> Result<Vec<PathBuf>> {
    build_by(cargo(args))
}

/// The same for a command that is ready but for the format of its messages.
pub(crate) fn build_by(mut command: Command) -> Result<Vec<PathBuf>> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let what = process::describe(&command);
    let finished = Process::spawn_as_is(command)?.finish(BUILD_DEADLINE)?;
    ensure!(finished.code == 0, "`{what}` ended with {}", finished.code);
    let mut executables = Vec::new();
    for line in finished.stdout.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("read cargo's messages")?;
        executables.extend(message["executable"].as_str().map(PathBuf::from));
    }
    Ok(executables)
}
