//! Where the workspace is.

use std::path::{Path, PathBuf};

/// The directory of the workspace's `Cargo.lock`.
///
/// Asked for when run: clones may share a target directory, and cargo then runs the same
/// executable in each of them.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let mut directories = package.ancestors();
    let found = directories.find(|directory| directory.join("Cargo.lock").is_file());
    found.map(Path::to_path_buf).unwrap_or(package)
}
