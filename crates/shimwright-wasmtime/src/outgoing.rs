//! Requests that a guest makes: plain HTTP/1.1, one connection each, within the network namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Interval, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::limits::Reach;

/// How long each part of a request may take if the guest sets no bound.
const PATIENCE: Duration = Duration::from_secs(600);

/// The default behaviour of `wasi:http`, without TLS, within what the guest can reach.
pub(crate) struct Outgoing(Reach);

impl Outgoing {
    pub(crate) fn new(reach: Reach) -> Self {
        Self(reach)
    }
}

/// What carries on with a request, or a response, until it has been transferred.
type Transfer = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _received: Transfer,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Transfer), Error>> + Send> {
        Box::new(send(self.0.clone(), request, options.unwrap_or_default()))
    }
}

async fn send(
    reach: Reach,
    mut request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<WasiBody>, Transfer), Error> {
    if request.uri().scheme() != Some(&Scheme::HTTP) {
        return Err(Error::InternalError(Some(
            "only requests with the scheme http can be made".to_owned(),
        )));
    }
    let authority = request.uri().authority();
    let authority = authority.ok_or(Error::HttpRequestUriInvalid)?;
    let port = authority.port_u16().unwrap_or(80);
    let connecting = connect(&reach, authority.host(), port);
    let stream = timeout(options.connect_timeout.unwrap_or(PATIENCE), connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = wasmtime_wasi::runtime::spawn(connection);

    // A server is told the path only (RFC 9112, section 3.2.1).
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    let answering = sender.send_request(request);
    let response = timeout(options.first_byte_timeout.unwrap_or(PATIENCE), answering)
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let between = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response = response.map(|body| Timed::new(body, between).boxed_unsync());
    Ok((response, Box::new(async move { Ok(connection.await?) })))
}

async fn connect(reach: &Reach, host: &str, port: u16) -> Result<TcpStream, Error> {
    // Only IPv6 addresses are in brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if !reach.name_lookup && bare.parse::<IpAddr>().is_err() {
        return Err(Error::HttpRequestDenied);
    }
    let found = lookup_host(format!("{host}:{port}")).await;
    let (allowed, denied): (Vec<SocketAddr>, Vec<_>) = found
        .map_err(connect_error)?
        .partition(|address| reach.allows(*address));
    if allowed.is_empty() && !denied.is_empty() {
        return Err(Error::HttpRequestDenied);
    }
    TcpStream::connect(&*allowed).await.map_err(connect_error)
}

fn connect_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Error::DestinationIpUnroutable
        }
        // What the resolver of the C library reports has no kind that could be matched.
        _ if error.raw_os_error().is_none() => Error::DnsError {
            rcode: Some(error.to_string()),
            info_code: None,
        },
        _ => Error::Connect(error),
    }
}

/// The body of a response, whose next part must come in time.
struct Timed {
    body: Incoming,
    bound: Interval,
}

impl Timed {
    fn new(body: Incoming, bound: Duration) -> Self {
        // An interval must not be empty, and its first tick is at once unless it is reset.
        let mut bound = tokio::time::interval(bound.max(Duration::from_nanos(1)));
        bound.reset();
        Self { body, bound }
    }
}

impl Body for Timed {
    type Data = <Incoming as Body>::Data;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.bound.reset();
            return Poll::Ready(frame.map(|frame| Ok(frame?)));
        }
        ready!(self.bound.poll_tick(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
