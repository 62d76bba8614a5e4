//! The client's side of a container's standard streams.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::{DEADLINE, Result};

/// Creates a FIFO that nobody reads or writes yet.
///
/// # Errors
///
/// Those of `mknod(2)`.
pub fn fifo(path: &Path) -> io::Result<()> {
    Ok(mknodat(
        CWD,
        path,
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )?)
}

/// A FIFO that is read in the background until its end.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Creates the FIFO and begins to read it.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn new(path: &Path) -> io::Result<Self> {
        fifo(path)?;
        let output = Self {
            path: path.to_owned(),
            state: Arc::default(),
        };
        output.read();
        Ok(output)
    }

    /// Begins to read it.
    fn read(&self) {
        let (path, state) = (self.path.clone(), Arc::clone(&self.state));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            // Opening waits for the shim.
            let mut file = File::open(path);
            loop {
                let read = file
                    .as_mut()
                    .map_or(0, |file| file.read(&mut buffer).unwrap_or(0));
                let mut locked = state.0.lock().unwrap_or_else(PoisonError::into_inner);
                locked.bytes.extend(&buffer[..read]);
                locked.ended |= read == 0;
                state.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
    }

    /// The path as a request wants it.
    pub fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Waits for the end and returns everything.
    ///
    /// # Errors
    ///
    /// If the end does not come.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        self.wait(|state| state.ended.then(|| state.bytes.clone()))
    }

    /// Waits for the end and returns everything as text.
    ///
    /// # Errors
    ///
    /// If the end does not come.
    pub fn text(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    /// Waits until this text has been written.
    ///
    /// # Errors
    ///
    /// If it does not come.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        self.wait(|state| {
            String::from_utf8_lossy(&state.bytes)
                .contains(text)
                .then_some(())
        })
    }

    /// Waits until `wanted` finds something in what has been written so far, which the second
    /// argument says is all.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn find<T>(&self, mut wanted: impl FnMut(&[u8], bool) -> Option<T>) -> Result<T> {
        self.wait(|state| wanted(&state.bytes, state.ended))
    }

    fn wait<T>(&self, mut wanted: impl FnMut(&State) -> Option<T>) -> Result<T> {
        let end = Instant::now() + DEADLINE;
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = wanted(&state) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = String::from_utf8_lossy(&state.bytes).into_owned();
                return Err(format!("only this was written: {text:?}").into());
            }
            let waited = self.state.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Ends the wait for a shim that never came.
        let _ = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&self.path);
    }
}

/// A FIFO to write to.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    file: Option<File>,
}

impl Input {
    /// Creates the FIFO and opens it.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    pub fn new(path: &Path) -> io::Result<Self> {
        fifo(path)?;
        // With both ends, or opening would wait for the shim.
        let both = OpenOptions::new().read(true).write(true).open(path)?;
        let file = OpenOptions::new().write(true).open(path)?;
        drop(both);
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
        })
    }

    /// The path as a request wants it.
    pub fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Writes all of it; waits while the FIFO is full.
    ///
    /// # Errors
    ///
    /// If nobody reads, or the input was closed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Closes the client's side. The guest sees the end only after `CloseIO` too.
    pub fn close(&mut self) {
        self.file = None;
    }
}
