//! The terminal of a person who runs runc, of which a test holds the other end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use shimwright_testkit::Result;

/// A terminal whose input comes from one FIFO and whose output goes to another.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    user: OwnedFd,
    stdin: PathBuf,
    stdout: PathBuf,
}

impl Terminal {
    /// One of this size: runc gives a container's terminal that of its own.
    pub(crate) fn make(size: &Value, stdin: &str, stdout: &str) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let user = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        let number = |name: &str| {
            let number = size[name]
                .as_u64()
                .and_then(|number| u16::try_from(number).ok());
            number.unwrap_or(0)
        };
        let size = Winsize {
            ws_row: number("height"),
            ws_col: number("width"),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&user, size)?;
        Ok(Self {
            master,
            user,
            stdin: stdin.into(),
            stdout: stdout.into(),
        })
    }

    /// Makes it the streams of a command.
    pub(crate) fn attach(&self, command: &mut Command) -> io::Result<()> {
        command
            .stdin(self.user.try_clone()?)
            .stdout(self.user.try_clone()?)
            .stderr(self.user.try_clone()?);
        Ok(())
    }

    /// Begins to copy both ways; the ends of the streams and of the terminal end it.
    pub(crate) fn copy(&self) -> io::Result<()> {
        let (reader, writer) = (self.master.try_clone()?, self.master.try_clone()?);
        let (stdin, stdout) = (self.stdin.clone(), self.stdout.clone());
        std::thread::spawn(move || pump(File::open(stdin)?, writer.into()));
        std::thread::spawn(move || {
            let stdout = File::options().write(true).open(stdout)?;
            pump(reader.into(), stdout)
        });
        Ok(())
    }
}

fn pump(mut from: File, mut to: File) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        // A terminal that nobody has open any more is an error, and the end.
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length])?,
        }
    }
}
