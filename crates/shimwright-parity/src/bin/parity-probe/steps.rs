//! What the program tries on request, each with what came of it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Map, Value, json};

use super::report::{describe, failure};

/// Does what `VERB:OPERAND` says.
pub(crate) fn run(step: &str) -> Value {
    let (verb, operand) = step.split_once(':').unwrap_or((step, ""));
    match verb {
        "device" => device(operand),
        "list" => list(Path::new(operand)),
        "mkdir" => outcome(fs::create_dir(operand).and_then(|()| fs::remove_dir(operand))),
        "open" => open(Path::new(operand)),
        "read" => fs::read(operand).map_or_else(
            |error| failure(&error),
            |bytes| json!(String::from_utf8_lossy(&bytes)),
        ),
        "memory policy" => {
            let maps = fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
            json!(maps.lines().next().and_then(|line| line.split(' ').nth(1)))
        }
        "stat" => fs::metadata(operand)
            .map_or_else(|error| failure(&error), |metadata| describe(&metadata)),
        "lstat" => fs::symlink_metadata(operand)
            .map_or_else(|error| failure(&error), |metadata| describe(&metadata)),
        "call" => call(operand),
        "write" => outcome(fs::write(operand, "written\n")),
        _ => json!("no such step"),
    }
}

fn outcome<T>(outcome: io::Result<T>) -> Value {
    outcome.map_or_else(|error| failure(&error), |_| json!("done"))
}

/// Whether a file can be opened to read and to write.
pub(crate) fn open(path: &Path) -> Value {
    use std::os::unix::fs::OpenOptionsExt;
    // Never waits, and never becomes the controlling terminal.
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    let mut options = File::options();
    options.custom_flags(flags.cast_signed());
    json!({
        "read": outcome(options.clone().read(true).open(path)),
        "write": outcome(options.write(true).open(path)),
    })
}

/// The operand is `DIRECTORY,c|b,MAJOR,MINOR`: makes the device there, opens and removes it.
fn device(operand: &str) -> Value {
    let words: Vec<&str> = operand.split(',').collect();
    let [directory, kind, major, minor] = words[..] else {
        return json!("no such device");
    };
    let kind = if kind == "b" {
        FileType::BlockDevice
    } else {
        FileType::CharacterDevice
    };
    let number = |text: &str| text.parse().unwrap_or(0);
    let path = Path::new(directory).join("parity-device");
    let device = makedev(number(major), number(minor));
    let made = mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, device);
    if let Err(error) = made {
        return json!({ "make": failure(&error.into()) });
    }
    let opened = open(&path);
    json!({ "make": "done", "open": opened, "remove": outcome(fs::remove_file(&path)) })
}

/// All below a directory.
fn list(directory: &Path) -> Value {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return failure(&error),
    };
    let mut found = Map::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let about = entry.path().symlink_metadata();
        found.insert(
            name,
            about.map_or_else(|error| failure(&error), |metadata| describe(&metadata)),
        );
    }
    Value::Object(found)
}

/// A harmless system call, which a filter may forbid.
fn call(name: &str) -> Value {
    let done = match name {
        "chmod" => fs::set_permissions(
            "/parity-none",
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        ),
        "chroot" => rustix::process::chroot("/parity-none").map_err(Into::into),
        "getppid" => {
            let _ = rustix::process::getppid();
            Ok(())
        }
        "kill" => rustix::process::test_kill_process(rustix::process::getpid()).map_err(Into::into),
        "sethostname" => rustix::system::sethostname(b"parity").map_err(Into::into),
        "setpriority" => rustix::process::setpriority_process(None, 5).map_err(Into::into),
        "setpriority-19" => rustix::process::setpriority_process(None, 19).map_err(Into::into),
        "socket" => socket(rustix::net::AddressFamily::INET),
        "socket-packet" => socket(rustix::net::AddressFamily::PACKET),
        "socket-unix" => socket(rustix::net::AddressFamily::UNIX),
        "umask" => {
            rustix::process::umask(Mode::from_raw_mode(0o77));
            Ok(())
        }
        "unshare" => {
            #[allow(deprecated, reason = "the flag concerns no descriptors")]
            let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWUTS);
            unshared.map_err(Into::into)
        }
        _ => return json!("no such call"),
    };
    outcome(done)
}

fn socket(family: rustix::net::AddressFamily) -> io::Result<()> {
    rustix::net::socket(family, rustix::net::SocketType::DGRAM, None)?;
    Ok(())
}
