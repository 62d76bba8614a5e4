//! What a program sees of its container.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{OFlags, major, minor};
use serde_json::{Map, Value, json};

/// Files of the kernel whose content is the container's own.
const SYSCTLS: [&str; 14] = [
    "fs/mqueue/msg_max",
    "kernel/cap_last_cap",
    "kernel/domainname",
    "kernel/hostname",
    "kernel/msgmax",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmmax",
    "net/core/somaxconn",
    "net/ipv4/ip_forward",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "user/max_user_namespaces",
    "vm/overcommit_memory",
];

/// Everything.
pub(crate) fn all() -> Value {
    json!({
        "args": args(),
        "cwd": cwd(),
        "descriptors": descriptors(),
        "devices": devices(),
        "environment": environment(),
        "ids": ids(),
        "mounts": text("/proc/self/mountinfo"),
        "names": names(),
        "namespaces": namespaces(),
        "process": process(),
        "root": root(),
        "status": text("/proc/self/status"),
        "sysctls": sysctls(),
        "terminal": terminal(),
    })
}

/// What a hook sees.
pub(crate) fn hook() -> Value {
    json!({
        "args": args(),
        "cwd": cwd(),
        "descriptors": descriptors(),
        "environment": environment(),
        "ids": ids(),
        "names": names(),
        "namespaces": namespaces(),
        "status": text("/proc/self/status"),
        "mounts": text("/proc/self/mountinfo"),
    })
}

/// What may have changed since.
pub(crate) fn mounts() -> Value {
    json!({ "mounts": text("/proc/self/mountinfo") })
}

fn text(path: &str) -> Value {
    fs::read_to_string(path).map_or_else(|error| failure(&error), |text| json!(text))
}

pub(crate) fn failure(error: &std::io::Error) -> Value {
    json!(format!(
        "error {}",
        error.raw_os_error().unwrap_or_default()
    ))
}

fn args() -> Value {
    let words = std::env::args_os();
    json!(
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    )
}

/// In their order.
fn environment() -> Value {
    // The libraries may change what they were given.
    let bytes = fs::read("/proc/self/environ").unwrap_or_default();
    let variables = bytes.split(|&byte| byte == 0).filter(|one| !one.is_empty());
    let text = |one: &[u8]| String::from_utf8_lossy(one).into_owned();
    let listed: Vec<String> = variables.map(text).collect();
    if !listed.is_empty() {
        return json!(listed);
    }
    let mut all: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    all.sort();
    json!(all)
}

fn cwd() -> Value {
    let cwd = std::env::current_dir();
    let mut found = cwd.map_or_else(
        |error| json!({ "path": failure(&error) }),
        |path| json!({ "path": path }),
    );
    if let Ok(metadata) = fs::metadata(".") {
        found["file"] = describe(&metadata);
    }
    found
}

/// Which descriptors there are, and what they are.
fn descriptors() -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).unwrap_or_default();
        // That of the directory that is being read.
        if target.as_os_str().as_bytes().ends_with(b"/fd") {
            continue;
        }
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let kind = fs::metadata(entry.path()).map_or("unknown", |file| kind(&file));
        let flags = flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
        // Neither is of use to the program.
        let flags = OFlags::from_bits_retain(flags.unwrap_or_default());
        let flags = flags - OFlags::LARGEFILE - OFlags::CLOEXEC;
        found.insert(
            name,
            json!({ "kind": kind, "flags": format!("{:o}", flags.bits()) }),
        );
    }
    Value::Object(found)
}

/// Each file below `/dev`, and whether devices can be opened.
fn devices() -> Value {
    let mut found = Map::new();
    walk(Path::new("/dev"), &mut found);
    Value::Object(found)
}

fn walk(directory: &Path, found: &mut Map<String, Value>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let mut about = describe(&metadata);
        if metadata.is_symlink() {
            about["target"] = json!(fs::read_link(&path).unwrap_or_default());
        } else if metadata.file_type().is_char_device() || metadata.file_type().is_block_device() {
            about["open"] = super::steps::open(&path);
        }
        found.insert(path.to_string_lossy().into_owned(), about);
        if metadata.is_dir() {
            walk(&path, found);
        }
    }
}

/// What kind of file, whose, and what may be done with it.
pub(crate) fn describe(metadata: &fs::Metadata) -> Value {
    let mut about = json!({
        "kind": kind(metadata),
        "mode": format!("{:o}", metadata.mode() & 0o7777),
        "owner": format!("{}:{}", metadata.uid(), metadata.gid()),
    });
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        let device = metadata.rdev();
        about["device"] = json!(format!("{}:{}", major(device), minor(device)));
    }
    about
}

fn kind(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "link"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_block_device() {
        "block device"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_socket() {
        "socket"
    } else {
        "file"
    }
}

fn ids() -> Value {
    let pid = rustix::process::getpid();
    let of = |id: rustix::io::Result<rustix::process::Pid>| {
        id.map_or("none", |id| if id == pid { "own" } else { "another's" })
    };
    json!({
        "parent": rustix::process::getppid().is_some(),
        "pid": if pid.as_raw_nonzero().get() == 1 { "1" } else { "another" },
        "process group": of(rustix::process::getpgid(None)),
        "session": of(rustix::process::getsid(None)),
    })
}

fn names() -> Value {
    let names = rustix::system::uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    json!({
        "domain": text(names.domainname()),
        "host": text(names.nodename()),
        "machine": text(names.machine()),
    })
}

fn namespaces() -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).unwrap_or_default();
        found.insert(name, json!(target));
    }
    Value::Object(found)
}

/// What the status does not say.
fn process() -> Value {
    json!({
        "cgroup": text("/proc/self/cgroup"),
        "dumpable": format!("{:?}", rustix::process::dumpable_behavior()),
        "gid map": text("/proc/self/gid_map"),
        "keeps capabilities": rustix::thread::get_keep_capabilities().ok(),
        "label": text("/proc/self/attr/current"),
        "limits": text("/proc/self/limits"),
        "oom score adj": text("/proc/self/oom_score_adj"),
        "parent death signal": format!("{:?}", rustix::process::parent_process_death_signal()),
        "personality": text("/proc/self/personality"),
        "secure bits": rustix::thread::capabilities_secure_bits().map(|bits| bits.bits()).ok(),
        "setgroups": text("/proc/self/setgroups"),
        "time offsets": text("/proc/self/timens_offsets"),
        "timer slack": rustix::thread::current_timer_slack().ok(),
        "uid map": text("/proc/self/uid_map"),
    })
}

/// What is at the top of the root, and whether it can be written.
fn root() -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        if let Ok(metadata) = entry.path().symlink_metadata() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.insert(name, describe(&metadata));
        }
    }
    json!({
        "files": found,
        "root": fs::metadata("/").map_or(Value::Null, |root| describe(&root)),
        "writable": super::steps::run("mkdir:/parity-new"),
    })
}

fn sysctls() -> Value {
    let read = |name: &&str| ((*name).to_owned(), text(&format!("/proc/sys/{name}")));
    Value::Object(SYSCTLS.iter().map(read).collect())
}

fn terminal() -> Value {
    let input = rustix::stdio::stdin();
    let is_terminal = rustix::termios::isatty(input);
    if !is_terminal {
        return json!(false);
    }
    let name = rustix::termios::ttyname(input, Vec::new());
    let size = rustix::termios::tcgetwinsize(input).ok();
    let modes = rustix::termios::tcgetattr(input).ok();
    json!({
        "name": name.map_or_else(|error| error.to_string(), |name| name.to_string_lossy().into_owned()),
        "size": size.map(|size| format!("{}x{}", size.ws_col, size.ws_row)),
        "input": modes.as_ref().map(|modes| modes.input_modes.bits()),
        "output": modes.as_ref().map(|modes| modes.output_modes.bits()),
        "local": modes.as_ref().map(|modes| modes.local_modes.bits()),
        "control": modes.as_ref().map(|modes| modes.control_modes.bits()),
        "controlling": fs::File::open("/dev/tty").is_ok(),
        "file": fs::metadata("/proc/self/fd/0").map_or(Value::Null, |file| describe(&file)),
    })
}
