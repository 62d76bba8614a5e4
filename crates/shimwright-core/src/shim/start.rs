//! `start`: finds or starts the shim process of a container's group, and prints its address.

use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim::Flags;
use containerd_shim::cgroup::set_cgroup_and_oom_score;
use rustix::fs::FlockOperation;

use super::bootstrap::Request;
use super::print;
use super::shutdown::lock;
use crate::cgroup::{GroupPath, Hierarchies};
use crate::code::cache;
use crate::config::bundle::{Bundle, group, write_atomically};
use crate::config::node;
use crate::config::node::Share;
use crate::config::options::RuntimeOptions;
use crate::error::{Context, Error};
use crate::process::role;
use crate::runner::host::Host;
use crate::runner::libraries;
use crate::runner::protected;
use crate::sys;

/// The file with the address of the shim process, for containerd up to 1.7.
pub(super) const ADDRESS_FILE: &str = "address";
/// The file with the pid of the shim process, for people.
const PID_FILE: &str = "shim.pid";

/// What a shim process reads before it serves.
const GO: &[u8] = b"\n";

pub(super) fn run(host: &Host, flags: &Flags) -> Result<(), Error> {
    let request = Request::read(flags)?;
    // A mistake of the node's administrator shows before anything has begun.
    let node = node::Config::read()?;
    node.limits(&request.options)?;
    // containerd's working directory for this command is the bundle.
    let directory = std::env::current_dir().context("find the bundle")?;
    let bundle = Bundle::new(directory);
    let spec = bundle.spec()?;
    let shared = node.share() == Share::Node;
    let group = if shared {
        node_group(&request.options)?
    } else {
        group(spec.annotations().as_ref(), &flags.id).to_owned()
    };
    // The name is in it, or the shims of two engines in one pod would take each other's place.
    let address = request
        .opts
        .socket_address(&format!("{group}@{}", host.name));
    let path = socket_path(&address);

    let mut waiting = None;
    let listener = listen(&path, || {
        let file = bundle.directory().join(ADDRESS_FILE);
        write_atomically(&file, address.as_bytes())
            .with_context(|| format!("write {}", file.display()))
    })?;
    if let Some(listener) = listener {
        match start_server(flags, &request, shared, &listener) {
            Ok(server) => waiting = Some(server),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        }
    }
    print(request.answer(&address)?)?;
    // Without this, because we have failed or are no more, the shim process ends: nobody would.
    if let Some(mut server) = waiting {
        server.write_all(GO).context("let the shim process serve")?;
    }
    Ok(())
}

/// The path of a socket's address.
fn socket_path(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap_or(address))
}

/// The path of the socket whose address a bundle has.
pub(super) fn address_in(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS_FILE)).ok()?;
    Some(socket_path(&address))
}

/// The group of all containers of a node, which no container's id can be.
///
/// The process is ours, in the same cgroup: after an upgrade of the executable, a new one
/// serves the containers to come.
fn node_group(options: &RuntimeOptions) -> Result<String, Error> {
    let own = std::fs::metadata("/proc/self/exe").context("find this executable")?;
    Ok(format!(
        "node/{}:{}:{}.{}{}",
        own.dev(),
        own.ino(),
        own.ctime(),
        own.ctime_nsec(),
        options.shim_cgroup
    ))
}

/// Binds the group's socket; `None` if a live shim process has it. In either case the container
/// `claim`s its address.
///
/// The lock on the directory makes finding a dead socket, removing it and binding a new one a
/// single step, or two commands at once could each start a process. Nor can the process that was
/// found decide to end before the claim, see [`super::shutdown`]. If the command that starts it
/// is gone before it serves, the connection made here keeps it.
fn listen(
    path: &Path,
    claim: impl FnOnce() -> Result<(), Error>,
) -> Result<Option<UnixListener>, Error> {
    let cannot_listen = || format!("listen on {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
        .with_context(cannot_listen)?;
    let _lock = lock(path, FlockOperation::LockExclusive).with_context(cannot_listen)?;
    match UnixStream::connect(path) {
        Ok(_) => return claim().map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(cannot_listen)?;
        }
        Err(error) => return Err(error).with_context(cannot_listen),
    }
    let listener = UnixListener::bind(path).with_context(cannot_listen)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(cannot_listen)?;
    if let Err(error) = claim() {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(Some(listener))
}

/// Starts the shim process, which inherits the listening socket: from here on it can be reached.
/// It serves once it is told to, through what is returned.
fn start_server(
    flags: &Flags,
    request: &Request,
    shared: bool,
    listener: &UnixListener,
) -> Result<PipeWriter, Error> {
    let (reader, writer) = io::pipe().context("make a pipe to the shim process")?;
    sys::fd::keep_over_exec(listener.as_fd()).context("pass on the socket")?;
    // Its forks enter containers.
    let program = protected::program().context("protect this executable")?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let name = std::env::args_os().next().unwrap_or_default();
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    command
        .args(["-namespace", &flags.namespace, "-id", &flags.id])
        .args(["-address", &request.opts.address])
        .env_clear()
        .env(role::SERVER, listener.as_raw_fd().to_string())
        .env("TTRPC_ADDRESS", &request.opts.ttrpc_address)
        .stdin(reader)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if shared {
        command.env(role::SHARED, "");
    }
    if request.opts.debug {
        command.arg("-debug");
    }
    for name in [cache::DIRECTORY_VARIABLE, node::FILE_VARIABLE] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // The process itself cannot see where its executable was found.
    let libraries = libraries::directory().context("find our own program")?;
    command.env(libraries::DIRECTORY_VARIABLE, libraries);
    sys::process::new_session(&mut command);
    let mut child = command.spawn().context("start the shim process")?;
    let confined = confine(child.id(), &request.options.shim_cgroup).and_then(|()| {
        write_atomically(Path::new(PID_FILE), child.id().to_string().as_bytes())
            .context("write the pid of the shim process")
    });
    if confined.is_err() {
        let _ = child.kill();
    }
    confined.map(|()| writer)
}

/// Puts the shim process into the cgroup of the options, on either version, and has the
/// kernel prefer it to containerd when memory is short.
fn confine(pid: u32, cgroup: &str) -> Result<(), Error> {
    if !cgroup.is_empty() {
        Hierarchies::discover()
            .and_then(|hierarchies| {
                let path = match Path::new(cgroup) {
                    path if path == Path::new("/") => GroupPath::top(),
                    path => GroupPath::parse(path).ok_or(std::io::ErrorKind::NotFound)?,
                };
                hierarchies.admit(&path, pid)
            })
            .with_context(|| format!("put the shim process into the cgroup {cgroup}"))?;
    }
    set_cgroup_and_oom_score(pid, "").context("set the OOM score of the shim process")
}
