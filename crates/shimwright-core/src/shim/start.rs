//! `start`: finds or starts the shim process of a container's group, and prints its address.

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use containerd_shim::Flags;
use containerd_shim::cgroup::set_cgroup_and_oom_score;
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::bootstrap::Request;
use super::print;
use super::shutdown::lock;
use super::socket::{self, Socket};
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

/// How many connections may wait until the shim process accepts them, unless the kernel's own bound
/// is smaller.
const BACKLOG: i32 = 4096;

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
    let socket = Socket::new(&address, &group, &request.opts.socket_address(&group));

    let claim = || {
        let file = bundle.directory().join(ADDRESS_FILE);
        write_atomically(&file, address.as_bytes())
            .with_context(|| format!("write {}", file.display()))
    };
    let mut waiting = None;
    if find(&socket.path, claim)?.is_some() {
        // All that can fail has been done before others can find the process.
        let server = start_server(flags, &request, shared, &socket)?;
        match listen(&socket, &server.socket, claim) {
            Ok(true) => waiting = Some(server.told),
            other => {
                server.end();
                other?;
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

/// The path of the socket whose address a bundle has.
pub(super) fn address_in(bundle: &Path) -> Option<PathBuf> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS_FILE)).ok()?;
    Some(socket::path(&address))
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

/// Looks for a live shim process of the group. If there is one, the container `claim`s its address;
/// otherwise the path is free as long as the lock that is returned is held.
///
/// The lock on the directory makes finding a dead socket, removing it and binding a new one a
/// single step, or two commands at once could each start a process. Nor can the process that was
/// found decide to end before the claim, see [`super::shutdown`]. If the command that starts it
/// is gone before it serves, the connection made here keeps it.
fn find(path: &Path, claim: impl FnOnce() -> Result<(), Error>) -> Result<Option<File>, Error> {
    let cannot_listen = || format!("listen on {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
        .with_context(cannot_listen)?;
    let lock = lock(path, FlockOperation::LockExclusive).with_context(cannot_listen)?;
    match UnixStream::connect(path) {
        Ok(_) => return claim().map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(cannot_listen)?;
        }
        Err(error) => return Err(error).with_context(cannot_listen),
    }
    Ok(Some(lock))
}

/// Has a socket, which a shim process holds already, listen on the path of the group. If another
/// command was faster, this returns `false`. In either case the container `claim`s the address.
fn listen(
    socket: &Socket,
    descriptor: &OwnedFd,
    claim: impl Fn() -> Result<(), Error>,
) -> Result<bool, Error> {
    let path = &socket.path;
    let cannot_listen = || format!("listen on {}", path.display());
    let Some(_lock) = find(path, &claim)? else {
        return Ok(false);
    };
    SocketAddrUnix::new(path)
        .and_then(|address| rustix::net::bind(descriptor, &address))
        .with_context(cannot_listen)?;
    let listening = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| Ok(rustix::net::listen(descriptor, BACKLOG)?))
        .with_context(cannot_listen)
        .and_then(|()| claim());
    match listening {
        Ok(()) => socket.link(),
        Err(_) => socket.remove(),
    }
    listening.map(|()| true)
}

/// A shim process that nobody can find yet.
struct Server {
    process: Child,
    /// It inherits the socket, which does not listen yet.
    socket: OwnedFd,
    /// It serves once it is told to, and ends if this is closed without a word.
    told: PipeWriter,
}

impl Server {
    /// Ends it: another one serves, or none can.
    fn end(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(PID_FILE);
    }
}

/// Starts the shim process.
fn start_server(
    flags: &Flags,
    request: &Request,
    shared: bool,
    socket: &Socket,
) -> Result<Server, Error> {
    let (reader, told) = io::pipe().context("make a pipe to the shim process")?;
    let descriptor = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let descriptor = descriptor.context("make the socket of the shim process")?;
    sys::fd::keep_over_exec(&descriptor).context("pass on the socket")?;
    // Its forks enter containers.
    let program = protected::program().context("protect this executable")?;
    let mut command = server_command(flags, request, socket, &program)?;
    command
        .env(role::SERVER, descriptor.as_raw_fd().to_string())
        .stdin(reader);
    if shared {
        command.env(role::SHARED, "");
    }
    let process = command.spawn().context("start the shim process")?;
    let pid = process.id();
    let server = Server {
        process,
        socket: descriptor,
        told,
    };
    let confined = confine(pid, &request.options.shim_cgroup).and_then(|()| {
        write_atomically(Path::new(PID_FILE), pid.to_string().as_bytes())
            .context("write the pid of the shim process")
    });
    match confined {
        Ok(()) => Ok(server),
        Err(error) => {
            server.end();
            Err(error)
        }
    }
}

/// What the shim process is executed with, from `program`.
fn server_command(
    flags: &Flags,
    request: &Request,
    socket: &Socket,
    program: &OwnedFd,
) -> Result<Command, Error> {
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let name = std::env::args_os().next().unwrap_or_default();
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    command
        .args(["-namespace", &flags.namespace, "-id", &flags.id])
        .args(["-address", &request.opts.address, "-socket"])
        .arg(&socket.path)
        .env_clear()
        .env("TTRPC_ADDRESS", &request.opts.ttrpc_address)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(alias) = &socket.alias {
        command.env(socket::ALIAS, alias);
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
    Ok(command)
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
