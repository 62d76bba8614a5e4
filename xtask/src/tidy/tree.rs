//! The files of the repository, as the checks read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shimwright_testenv::error::{Context, Result};

/// The files below the workspace's root, by their relative paths.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) files: BTreeSet<String>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self {
            root: root.to_owned(),
            files: BTreeSet::new(),
        };
        tree.walk(root)?;
        Ok(tree)
    }

    fn walk(&mut self, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory).context(format_args!("list {}", directory.display()));
        for entry in entries? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if name == ".git" || name == "target" {
                continue;
            }
            if path.is_dir() {
                self.walk(&path)?;
            } else if let Ok(relative) = path.strip_prefix(&self.root) {
                self.files.insert(relative.to_string_lossy().into_owned());
            }
        }
        Ok(())
    }

    pub(super) fn with_extension(&self, extension: &str) -> impl Iterator<Item = &str> {
        let suffix = format!(".{extension}");
        self.files
            .iter()
            .map(String::as_str)
            .filter(move |path| path.ends_with(&suffix))
    }

    /// The text of a file, empty if there is none.
    pub(super) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// Whether there is a file or a folder at this path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, text).context(format_args!("write {}", path.display()))
    }
}

/// A tree of a test, on disk: each file by its path and its text.
#[cfg(test)]
pub(super) fn of(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tree = Tree::read(directory.path()).unwrap();
    (directory, tree)
}
