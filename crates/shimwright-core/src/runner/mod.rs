//! The runner: the container's first process, which executes our own program in a fresh address
//! space.
//!
//! It starts inside the finished sandbox. Its only open files of the node are its configuration and
//! its artifact; its only variable is the number of the descriptor with its configuration.

pub(crate) mod config;
pub(crate) mod host;
pub(crate) mod libraries;
pub(crate) mod protected;
pub(crate) mod syscalls;

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

use self::config::Load;
pub(crate) use self::config::RunnerConfig;
use crate::engine::application::Application;
use crate::engine::artifact::Artifact;
use crate::engine::exit::Status;
use crate::engine::{BoxError, Exit};
use crate::error::{self, Context};
use crate::process::idle;
use crate::runner::host::Host;
use crate::sys;
use crate::sys::landlock::{self, Ruleset, files};

/// The environment of a runner whose configuration is in `descriptor`.
pub(crate) fn environment(descriptor: &OwnedFd) -> String {
    format!(
        "{}={}",
        crate::process::role::RUNNER,
        descriptor.as_raw_fd()
    )
}

/// The arguments of a guest that its runner is executed with, for those who list processes: as much
/// of them as fits into a page. The guest's own are in the configuration, because `execve(2)` takes
/// no more than 128 KiB for one.
pub(crate) fn shown(args: &[String]) -> Vec<String> {
    let mut room: usize = 4096;
    let mut shown = Vec::new();
    for arg in args {
        let part = &arg[..arg.floor_char_boundary(room)];
        shown.push(part.to_owned());
        // With the byte that ends it.
        room = room.saturating_sub(arg.len() + 1);
        if room == 0 {
            break;
        }
    }
    shown
}

/// The runner's whole life. Returns the status of the task.
pub(crate) fn main(host: &Host, descriptor: RawFd) -> Status {
    sys::signal::end_on_signals();
    let hidden = sys::process::hide().map_err(BoxError::from);
    let config = hidden.and_then(|()| RunnerConfig::read(descriptor));
    let outcome = config.and_then(|config| run(host, config));
    let (status, reason) = match outcome {
        Ok(Exit::Code(code)) => return Status::from_code(code),
        Ok(Exit::Trap(reason)) => (Status::TRAPPED, reason),
        Err(error) => (Status::ENGINE_FAILED, error::lines(&*error)),
    };
    // The container's own log is where its user looks. One line, whatever the engine wrote.
    let reason: Vec<&str> = reason
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let reason = reason.join("; ");
    let reason = error::printable(&reason);
    let _ = writeln!(std::io::stderr(), "{}: {reason}", host.name);
    status
}

fn run(host: &Host, mut config: RunnerConfig) -> Result<Exit, BoxError> {
    if let Some(seconds) = config.limits.time_limit {
        sys::signal::end_after(seconds);
    }
    let program = match &config.load {
        Load::Artifact(file) => Program::Artifact(file.open()?),
        Load::Application(files) => Program::Application(files.open()?),
    };
    let options = std::mem::take(&mut config.options);
    let engine = host.engine(&crate::engine::Options::new(options))?;
    if host.libraries.is_some() {
        engine.load()?;
        libraries::leave()?;
    }
    let has_network = !config.limits.isolates_network();
    confine(has_network).context("confine the engine with Landlock")?;
    syscalls::restrict_system_calls().context("filter the engine's system calls")?;
    idle::release_memory_once_settled();
    match program {
        Program::Artifact(artifact) => engine.run(&config.workload(artifact)),
        Program::Application(application) => {
            let applications = engine.applications();
            let applications = applications.ok_or("the engine runs no applications")?;
            applications.run(&config.workload(application))
        }
    }
}

/// What is run.
enum Program {
    Artifact(Artifact),
    Application(Application),
}

/// Gives up, with Landlock and for good, what no engine needs: executing files, devices, mounts,
/// signals to other processes and their abstract sockets, and TCP where the guest has no network.
///
/// It is one more wall around a guest that has broken out, which the kernel keeps at other places
/// than the sandbox and the filter of system calls. It is about this thread and those it starts, so
/// it comes before there are any. A kernel without Landlock gives up nothing.
fn confine(network: bool) -> Result<(), BoxError> {
    // `linux/landlock.h`
    const MAKE_CHAR: u64 = 1 << 6;
    const MAKE_BLOCK: u64 = 1 << 11;
    const IOCTL_DEV: u64 = 1 << 15;
    rustix::thread::set_no_new_privs(true)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    let kept = files::ALL & !(files::EXECUTE | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV);
    landlock::restrict(&Ruleset {
        network: if network { 0 } else { landlock::TCP },
        kept: &[(root.as_fd(), kept)],
        ..Ruleset::NOTHING
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    #[test]
    fn as_much_of_the_arguments_is_shown_as_fits() {
        let lengths = |args: &[String]| shown(args).iter().map(String::len).collect::<Vec<_>>();
        let args = ["name".to_owned(), "x".repeat(200_000), "y".to_owned()];
        assert_eq!(lengths(&args), [4, 4091]);
        assert_eq!(lengths(&args[1..]), [4096]);
        assert_eq!(lengths(&args[2..]), [1]);
        assert_eq!(lengths(&vec![String::new(); 9000]), vec![0; 4096]);
    }

    fn is_denied<T>(outcome: std::io::Result<T>) -> bool {
        outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_confined_thread_uses_files_and_nothing_else_of_the_node() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("shimwright-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let _outside = UnixListener::bind_addr(&name).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let confined = move || {
            confine(false).unwrap();
            std::fs::write(&path, "text").unwrap();
            std::fs::rename(&path, path.with_extension("b")).unwrap();
            let version = landlock::version();
            let denied = [
                (
                    1,
                    is_denied(std::process::Command::new("/bin/true").status()),
                ),
                (4, is_denied(std::net::TcpStream::connect("127.0.0.1:9"))),
                (4, is_denied(std::net::TcpListener::bind("127.0.0.1:0"))),
                (6, is_denied(UnixStream::connect_addr(&name))),
            ];
            // What an older kernel does not know is not restricted.
            for (index, (since, denied)) in denied.into_iter().enumerate() {
                assert_eq!(denied, version >= since, "{index}");
            }
        };
        std::thread::spawn(confined).join().unwrap();
    }
}
