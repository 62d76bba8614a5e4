//! Components that handle HTTP requests, served until the process is asked to end.

use std::convert::Infallible;
use std::fmt::Display;
use std::future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::{NonZero, NonZeroUsize};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use shimwright_core::{BoxError, Exit, Workload};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Sleep, timeout};
use wasmtime::component::GuestTaskId;
use wasmtime::{Engine, Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState,
    WorkerStatus,
};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use crate::component::{self, Code, Entry, Host};
use crate::settings::Settings;
use crate::wasi::{self, View};
use crate::{config, limits};

/// The most connections that are open at the same time; more wait in the kernel's queue. Each holds
/// a descriptor, of which a container often has 1024.
const CONNECTIONS: usize = 500;

/// The most threads that handle requests: not as many as a large node has processors, since a
/// container is rarely given all of them.
const THREADS: usize = 8;

/// How many places the pool has for instances that are just being put away.
const SPARE: u32 = 16;

/// How long a connection without a request stays open: longer than proxies keep theirs.
const IDLE: Duration = Duration::from_secs(75);

/// How often a connection of HTTP/2 is asked whether its peer is still there.
const PING: Duration = Duration::from_secs(30);

/// How long to wait when there is nothing to accept a connection with.
const SHORTAGE: Duration = Duration::from_millis(100);

/// How long the end of an instance may take after it has failed a request.
const AFTERMATH: Duration = Duration::from_millis(100);

/// How long an instance waits for another request.
const KEPT: Duration = Duration::from_millis(100);

/// How many requests an instance may be given, unless the container says how many in all: by
/// `wasi:http` 0.2 there may be more than one, but few guests expect it, 0.3 is made for it. The
/// numbers are those of `wasmtime serve`.
#[derive(Clone, Copy)]
struct Reuse {
    at_once: usize,
    in_all: usize,
}

impl Reuse {
    fn of(handler: &ProxyPre<Host>, in_all: Option<NonZeroUsize>) -> Self {
        let (at_once, usual) = match handler {
            ProxyPre::P2(_) => (1, 1),
            #[cfg(feature = "p3")]
            ProxyPre::P3(_) => (16, 128),
        };
        Self {
            at_once,
            in_all: in_all.map_or(usual, NonZeroUsize::get),
        }
    }
}

/// Serves until the first signal, and then finishes what has been begun.
pub(crate) fn serve(
    engine: &Engine,
    handler: ProxyPre<Host>,
    workload: &Workload,
    code: Code<'_>,
) -> Result<Exit, BoxError> {
    let settings = Settings::new(workload.env())?;
    let (engine, handler) = match &code {
        // Only in tests: a shim compiles ahead of time, and what a pool holds has to fit into it.
        Code::Wasm(_) => (engine.clone(), handler),
        Code::Native(_) => match pooled(workload, &code, settings.concurrency) {
            Ok(pooled) => pooled,
            // Not everything fits into a pool, nor is there always the address space for one.
            Err(error) => {
                // With all its causes.
                let why = format!("{error:#}").replace('\n', "; ");
                report(format_args!(
                    "each instance is allocated separately, so requests take longer: there is no \
                     pool: {why}"
                ));
                (engine.clone(), handler)
            }
        },
    };
    drop(code);
    shimwright_core::forbid_new_code()?;
    let view = View::new(workload)?;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(THREADS))
        .enable_all()
        .build()?;
    let exit = runtime.block_on(run(engine, handler, view, settings));
    runtime.shutdown_background();
    exit
}

/// The same component for an engine whose instances come from a pool, which is known to be wanted
/// only now that it has been looked at.
fn pooled(
    workload: &Workload,
    code: &Code<'_>,
    concurrency: u16,
) -> Result<(Engine, ProxyPre<Host>), BoxError> {
    let instances = u32::from(concurrency) + SPARE;
    let mut config = config::for_serving(instances)?;
    limits::limit_stack(&mut config, workload);
    let engine = Engine::new(&config)?;
    let component = code.load(&engine)?;
    match component::entry(&component, workload)? {
        Entry::Serve(handler) => Ok((engine, handler)),
        Entry::Run(_) => Err("the component has changed".into()),
    }
}

async fn run(
    engine: Engine,
    handler: ProxyPre<Host>,
    view: View,
    settings: Settings,
) -> Result<Exit, BoxError> {
    let listener = listen(&settings)
        .map_err(|error| format!("cannot listen on {}: {error}", settings.address))?;
    let asked = OwnedFd::from(shimwright_core::drain_on_signals(settings.grace)?);
    let asked = pipe::Receiver::from_owned_fd(asked)?;
    let (alive, mut ended) = mpsc::channel(1);
    let server = Server::new(engine, handler, view, &settings, alive);
    let protocol = protocol(&settings);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let draining = GracefulShutdown::new();
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            _ = asked.readable() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let begun = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (server, begun) = (server.clone(), Arc::clone(&begun));
            move |request| {
                begun.store(true, Ordering::Relaxed);
                server.clone().answer(request)
            }
        });
        let connection = protocol.serve_connection(TokioIo::new(stream), service);
        let connection = draining.watch(connection.into_owned());
        tokio::spawn(async move {
            tokio::select! {
                // One that breaks is its client's business.
                _ = connection => {}
                // hyper bounds the time between requests, but not until the first.
                () = silence(&begun) => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    draining.shutdown().await;
    drop(server);
    // Nothing is ever sent: the last instance that ends closes the channel.
    ended.recv().await;
    Ok(Exit::Code(0))
}

/// What every connection is spoken to by.
fn protocol(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(u32::from(settings.concurrency));
    protocol
}

fn listen(settings: &Settings) -> io::Result<TcpListener> {
    let socket = match settings.address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of a server that has just ended must not keep the next one from its address.
    socket.set_reuseaddr(true)?;
    socket.bind(settings.address)?;
    socket.listen(settings.backlog)
}

/// Waits until there may be another connection, and for it.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // None only if the semaphore were closed, which it never is.
    let permit = Arc::clone(connections).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small parts of a body are not to wait for an acknowledgement of those before.
                let _ = stream.set_nodelay(true);
                return (stream, permit);
            }
            // The client is gone already (`accept(2)`).
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Descriptors or memory are used up, and nothing tells when that changes.
            Err(_) => tokio::time::sleep(SHORTAGE).await,
        }
    }
}

/// Returns if there has been no request for too long.
async fn silence(begun: &AtomicBool) {
    tokio::time::sleep(IDLE).await;
    if begun.load(Ordering::Relaxed) {
        future::pending().await
    }
}

/// Everything that a request needs.
#[derive(Clone)]
struct Server {
    handler: ProxyHandler<Instances>,
    /// A permit for each request that is handled, until its response has been sent.
    requests: Arc<Semaphore>,
}

impl Server {
    /// A server whose instances each keep `alive`.
    fn new(
        engine: Engine,
        handler: ProxyPre<Host>,
        view: View,
        settings: &Settings,
        alive: mpsc::Sender<Infallible>,
    ) -> Self {
        let concurrency = usize::from(settings.concurrency);
        Self {
            requests: Arc::new(Semaphore::new(concurrency)),
            handler: ProxyHandler::new(Instances {
                reuse: Reuse::of(&handler, settings.reuse),
                engine,
                handler,
                view,
                bound: Arc::new(Semaphore::new(concurrency)),
                _alive: alive,
            }),
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<WasiBody>, Infallible> {
        if !names_its_host(&request) {
            return Ok(plain(StatusCode::BAD_REQUEST));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        // None only if the semaphore were closed, which it never is.
        let permit = self.requests.acquire_owned().await.ok();
        let request = request.map(|body| body.map_err(Error::from).boxed_unsync());
        let (failure, failed) = oneshot::channel();
        Ok(match self.handler.handle(failure, request).await {
            Ok(response) => response.map(|body| {
                let held = move |error| {
                    let _ = &permit;
                    error
                };
                body.map_err(held).boxed_unsync()
            }),
            Err(error) => {
                let mut why = reason(&error);
                // It holds `failure` if there never was an instance.
                drop(error);
                // The instance knows better, if this was its end; one that goes on says nothing.
                if let Ok(Ok(better)) = timeout(AFTERMATH, failed).await {
                    why = better;
                }
                report(format_args!("{method} {path}: {why}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        })
    }
}

/// Whether a request says which host it is for, as it must (RFC 9112, section 3.2), and in ASCII.
/// A handler could not be told otherwise.
fn names_its_host(request: &Request<Incoming>) -> bool {
    let header = || request.headers().get(http::header::HOST);
    request.uri().authority().is_some() || header().is_some_and(|host| host.to_str().is_ok())
}

/// A response that is not the guest's.
fn plain(status: StatusCode) -> Response<WasiBody> {
    let text = format!("{status}\n");
    let mut response = Response::new(Full::from(text).map_err(Error::from).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Why a handler has failed, in one line.
fn reason(error: &wasmtime::Error) -> String {
    match wasi::exit(error) {
        Exit::Trap(reason) => reason.replace('\n', "; "),
        _ => "the guest has exited".to_owned(),
    }
}

/// Says on the container's standard error what has gone wrong with a guest.
fn report(what: impl Display) {
    // At once, so that lines of several threads do not mix.
    let _ = io::stderr().write_all(format!("wasmtime: {what}\n").as_bytes());
}

/// Makes an instance when a request finds none that takes it.
struct Instances {
    engine: Engine,
    handler: ProxyPre<Host>,
    view: View,
    reuse: Reuse,
    /// A permit for each instance: one may work on when its response has been sent.
    bound: Arc<Semaphore>,
    /// Gone when the last instance is.
    _alive: mpsc::Sender<Infallible>,
}

impl HandlerState for Instances {
    type StoreData = Host;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Expiration, Worker>> {
        let permit = Arc::clone(&self.bound).acquire_owned().await?;
        let wasi = self
            .view
            .context()
            .map_err(wasmtime::Error::from_boxed)?
            .build();
        let mut store = Host::store(&self.engine, wasi, &self.view.limits);
        let proxy = self.handler.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy,
            view: Host::http,
            expiration: Expiration(Box::pin(tokio::time::sleep(KEPT))),
            state: Worker {
                reuse: self.reuse,
                requests: Mutex::default(),
                _permit: permit,
            },
        })
    }
}

/// One instance.
struct Worker {
    reuse: Reuse,
    /// Those who ask why it failed, if it does.
    requests: Mutex<Vec<oneshot::Sender<String>>>,
    _permit: OwnedSemaphorePermit,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = oneshot::Sender<String>;

    fn should_accept_request(&self, at_once: usize, in_all: usize) -> ShouldAccept {
        if in_all >= self.reuse.in_all {
            ShouldAccept::Never
        } else if at_once >= self.reuse.at_once {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, Host>,
        failure: oneshot::Sender<String>,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(failure);
        // How long a request may take is between its client and the guest.
        Box::pin(future::pending())
    }

    fn drop(&self, _store: Store<Host>, result: wasmtime::Result<()>) {
        let Err(error) = result else { return };
        let why = reason(&error);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // All of them are told, and nobody may be waiting: each may have its response.
        let told = requests
            .drain(..)
            .map(|asked| asked.send(why.clone()).is_ok());
        if told.filter(|told| *told).count() == 0 {
            report(format_args!("after the response: {why}"));
        }
    }
}

/// Ends an instance that nobody asks any more.
struct Expiration(Pin<Box<Sleep>>);

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        since: Instant,
    ) -> Poll<()> {
        if status != WorkerStatus::Idle {
            return Poll::Pending;
        }
        let end = (since + KEPT).into();
        if self.0.deadline() != end {
            self.0.as_mut().reset(end);
        }
        self.0.as_mut().poll(cx)
    }
}
