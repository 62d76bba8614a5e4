//! Files of a cgroup: written all at once, read as lines of names and numbers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

/// Opens an existing cgroup file; never creates one.
pub(super) fn open_to_write(file: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file)
}

/// Writes to a cgroup file, all at once as each of them demands.
pub(super) fn write(file: &Path, value: &str) -> io::Result<()> {
    open_to_write(file)?.write_all(value.as_bytes())
}

/// A file of lines `name value`.
#[derive(Debug)]
pub(crate) struct Table(HashMap<String, u64>);

impl Table {
    /// Reads a file; one that cannot be read is empty.
    pub(crate) fn read(directory: &Path, file: &str) -> Self {
        Self::parse(&std::fs::read_to_string(directory.join(file)).unwrap_or_default())
    }

    /// Lines of another form are left out.
    pub(crate) fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
                .collect(),
        )
    }

    /// The value of a name, or 0.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }
}
