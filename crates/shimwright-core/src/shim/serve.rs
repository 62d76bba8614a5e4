//! The shim process: serves the Task API for one group of containers until the last is deleted.
//!
//! It has one thread, always. That makes it small, and it makes a fork of it a process that may do
//! anything. Whatever would block is done by a [launcher](crate::process::launcher).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim::Flags;
use containerd_shim_protos::ttrpc::r#async::Server;
use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;
use futures::stream;
use rustix::pipe::PipeFlags;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::connection::{Bounded, refusals};
use super::shutdown::{Shutdown, abandon};
use super::socket::Socket;
use crate::cgroup::Hierarchies;
use crate::code::content::Store;
use crate::error::{Context, Error};
use crate::process::reaper::Reaper;
use crate::process::role;
use crate::runner::host::Host;
use crate::service::events::Events;
use crate::service::log;
use crate::service::log::Log;
use crate::service::{Released, Service, Shared};
use crate::sys;

/// How long to wait after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long containerd may take to accept the last events.
const FLUSH_BOUND: Duration = Duration::from_secs(3);

pub(super) fn run(host: Host, flags: &Flags) -> Result<(), Error> {
    // The process lives as long as its engine's description.
    let host: &'static Host = Box::leak(Box::new(host));
    let number = std::env::var(role::SERVER)
        .ok()
        .and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| {
        Error::invalid("this action is containerd's business: did you mean -v, -info or start?")
    })?;
    sys::fd::close_all_but(&[number]).context("close inherited descriptors")?;
    let listener = UnixListener::from(sys::fd::inherited(number).context("take over the socket")?);
    sys::memory::disable_huge_pages();
    // It was executed as `/proc/self/exe`, and would be called `exe`.
    let _ = rustix::thread::set_name(c"containerd-shim");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become the parent of orphans")?;
    let signals = sys::signal::signal_fd().context("receive signals")?;
    // containerd's working directory for `start`, and so ours, is the bundle.
    let bundle = std::env::current_dir().context("find the bundle")?;
    let log = log::open(&bundle, flags.debug);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(serve(host, flags, &bundle, listener, signals, log))
}

/// Serves until the last task is gone and containerd asks for the end, or a signal does.
async fn serve(
    host: &'static Host,
    flags: &Flags,
    bundle: &Path,
    listener: UnixListener,
    signals: OwnedFd,
    log: Option<Log>,
) -> Result<(), Error> {
    let socket = Socket::own(flags);
    let shared = std::env::var_os(role::SHARED).is_some();
    let shutdown = bundle
        .parent()
        .filter(|_| shared)
        .map(|bundles| Arc::new(Shutdown::new(socket.path.clone(), bundles.to_owned())));
    let events = Events::new(&flags.namespace);
    let address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    tokio::spawn(Arc::clone(&events).deliver(address));
    let reaper = Arc::new(Reaper::default());
    let service = service(host, flags, (&events, &reaper), log, shutdown.as_ref())?;
    let told = told_to_serve().context("hear from the start command")?;
    if !told {
        // The command has ended without printing our address. Another one may have printed it.
        if abandon(&listener, &socket.path).await {
            socket.unlink();
            return Ok(());
        }
        if shutdown.is_some() {
            // That one may have ended too, and its bundle may be gone.
            service.ask_to_shut_down();
        }
    }
    let mut server = Server::new()
        .add_listener(accept(listener, service.clone()).context("listen")?)
        .register_service(service.registrations())
        .register_service(refusals());
    server.start().await.context("serve")?;
    tracing::info!(id = flags.id, namespace = flags.namespace, "shim started");

    tokio::spawn(service.clone().release_memory());
    tokio::select! {
        () = may_end(&service, shutdown.as_deref(), &socket) => {}
        told = told_to_end(signals, &service, &reaper) => {
            told.context("receive signals")?;
            socket.remove();
        }
    }
    events.flush(FLUSH_BOUND).await;
    // The answer to `Shutdown` is on its way; containerd expects the connection to end after it.
    let _ = tokio::time::timeout(Duration::from_secs(1), server.shutdown()).await;
    Ok(())
}

/// The Task service of this process.
fn service(
    host: &'static Host,
    flags: &Flags,
    (events, reaper): (&Arc<Events>, &Arc<Reaper>),
    log: Option<Log>,
    shutdown: Option<&Arc<Shutdown>>,
) -> Result<Service, Error> {
    Ok(Service::new(Shared {
        host,
        events: Arc::clone(events),
        reaper: Arc::clone(reaper),
        hierarchies: Hierarchies::discover().context("find the cgroup hierarchies")?,
        store: Store {
            address: flags.address.clone(),
            namespace: flags.namespace.clone(),
        },
        log,
        released: shutdown
            .cloned()
            .map(|shutdown| Released(Box::new(move |id: &str| shutdown.release(id)))),
        alive: rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?,
    }))
}

/// Waits until containerd asks for the end and nobody can miss this process. Its socket is gone
/// then: a `start` of the group has to find nobody, and start a process.
async fn may_end(service: &Service, shutdown: Option<&Shutdown>, socket: &Socket) {
    match shutdown {
        Some(shutdown) => shutdown.allowed(service).await,
        None => {
            tokio::select! {
                () = service.shut_down() => {}
                () = service.forgotten() => tracing::info!("nobody asks for the end: ending"),
            }
            socket.remove();
        }
    }
}

/// Does what signals ask for, until one of them has asked for the end and every task has ended.
async fn told_to_end(signals: OwnedFd, service: &Service, reaper: &Reaper) -> io::Result<()> {
    let signals = sys::fd::watch(signals)?;
    loop {
        match next_signal(&signals).await? {
            libc::SIGCHLD => reaper.collect(),
            libc::SIGTERM | libc::SIGINT => break,
            libc::SIGUSR1 => tracing::info!(?service, "state"),
            _ => {}
        }
    }
    tracing::info!("told to end: ending every task first");
    let collecting = async {
        while let Ok(signal) = next_signal(&signals).await {
            if signal == libc::SIGCHLD {
                reaper.collect();
            }
        }
    };
    tokio::select! { () = service.kill_all() => {}, () = collecting => {} }
    Ok(())
}

/// Waits for the `start` command, which is about to end, to say that all is well; the shim process
/// would be nobody's otherwise. Its pipe is standard input, which is `/dev/null` from here on.
fn told_to_serve() -> io::Result<bool> {
    // Without the buffer that `std` would keep for it.
    let mut word = [0];
    let told = rustix::io::read(rustix::stdio::stdin(), &mut word)? > 0;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(null)?;
    Ok(told)
}

async fn next_signal(signals: &AsyncFd<OwnedFd>) -> io::Result<i32> {
    signals
        .async_io(tokio::io::Interest::READABLE, |signals| {
            sys::signal::read_signal(signals.as_fd())
        })
        .await
}

/// Accepts connections of our own user only: the socket's mode says so too, but a descriptor of a
/// connection can be handed on. No more are open than containerd may need for its tasks.
fn accept(listener: UnixListener, service: Service) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let own = rustix::process::geteuid().as_raw();
    let open = Arc::new(());
    let state = (listener, service, open);
    Ok(Listener::new(stream::unfold(
        state,
        move |(listener, service, open)| async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) if !is_peer(&stream, own) => {
                        tracing::warn!("refused a connection of another user");
                    }
                    // One reference is this loop's.
                    Ok(_) if Arc::strong_count(&open) > connections(service.tasks()) => {
                        tracing::warn!("refused a connection: there are too many");
                    }
                    Ok((stream, _)) => {
                        service.interested();
                        let stream = Bounded::new(stream, Arc::clone(&open));
                        return Some((Ok(stream), (listener, service, open)));
                    }
                    // Out of descriptors, most likely, and nothing tells when there is one again.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        },
    )))
}

/// How many connections may be open. containerd has one for each container, and others while it
/// starts one or is started itself.
fn connections(tasks: usize) -> usize {
    256 + 4 * tasks
}

fn is_peer(stream: &UnixStream, user: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == user)
}
