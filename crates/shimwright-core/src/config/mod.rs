//! Input of containerd and the node, parsed into types, and the record for cleanup.

pub(crate) mod bundle;
pub(crate) mod identity;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod record;
pub(crate) mod spec;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a file of at most `most` bytes.
fn read_bounded(path: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    if read as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}
