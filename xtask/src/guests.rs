//! The guest programs of the tests, as files.

use std::path::{Path, PathBuf};
use std::process::Command;

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Result, error};
use shimwright_testenv::process;

use crate::cargo;

/// Writes every guest program into a directory, as `<name>.wasm`.
pub(crate) fn export(directory: &Path) -> Result<()> {
    let built = cargo::build(&["build", "--release", "--workspace", "--example", "export"])?;
    let export: Option<&PathBuf> = built.iter().find(|path| path.ends_with("export"));
    let mut command = Command::new(export.ok_or_else(|| error!("cargo has not built `export`"))?);
    command.arg(directory);
    process::run(command, SHORT)?.success()?;
    Ok(())
}
