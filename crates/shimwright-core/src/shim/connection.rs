//! A connection to the Task service with bounds: how many calls wait on it, and how long a message
//! is.
//!
//! The ttrpc server keeps every call that waits, and a message that is too long is only answered
//! when all of it has come. So the stream of bytes is read along: a call that is one too many, or
//! too long, becomes a call of a [service](refusals) that answers with the reason. The connection
//! itself stays, because containerd takes its end for the end of the shim.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use containerd_shim_protos::ttrpc::proto::{
    MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MESSAGE_TYPE_DATA, MESSAGE_TYPE_REQUEST,
    MESSAGE_TYPE_RESPONSE, MessageHeader, Request, Response, Status,
};
use containerd_shim_protos::ttrpc::{Code, Result as TtrpcResult, get_status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How many calls of one connection may wait for their answers. containerd has a connection for
/// each container, on which a few wait at once.
pub(super) const MAX_CALLS: usize = 1024;

/// How long the rest of a message that is too long may take to come.
const REST_BOUND: Duration = Duration::from_secs(10);

/// The name of the service that refuses; containerd calls none of this name.
const SERVICE: &str = "shimwright.Refusals";
const TOO_MANY: &str = "TooMany";
const TOO_LONG: &str = "TooLong";

/// The sandbox API (`docs/decisions/0016-sandbox-api-and-streaming.md`): without this, the answer
/// would be that the caller's argument is invalid.
const SANDBOX_SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
const SANDBOX_METHODS: [&str; 9] = [
    "CreateSandbox",
    "StartSandbox",
    "Platform",
    "StopSandbox",
    "WaitSandbox",
    "SandboxStatus",
    "PingSandbox",
    "ShutdownSandbox",
    "SandboxMetrics",
];
const NO_SANDBOX: &str = "the sandbox API is not supported: sandboxer of the runtime handler in \
                          containerd's configuration has to be \"podsandbox\"";

/// The service that answers what is beyond the bounds, and the services that this shim does not
/// have.
pub(super) fn refusals() -> HashMap<String, Service> {
    let refusals = [
        (
            TOO_MANY,
            Code::RESOURCE_EXHAUSTED,
            format!("more than {MAX_CALLS} calls of one connection at once"),
        ),
        (
            TOO_LONG,
            Code::INVALID_ARGUMENT,
            format!("a message longer than {MESSAGE_LENGTH_MAX} bytes"),
        ),
    ];
    let sandbox = SANDBOX_METHODS.map(|name| (name, Code::UNIMPLEMENTED, NO_SANDBOX.to_owned()));
    HashMap::from([
        (SERVICE.to_owned(), refusing(refusals)),
        (SANDBOX_SERVICE.to_owned(), refusing(sandbox)),
    ])
}

/// A service whose methods give these answers.
fn refusing<const N: usize>(refusals: [(&str, Code, String); N]) -> Service {
    let methods = refusals.map(|(name, code, text)| {
        let refusal: Box<dyn MethodHandler + Send + Sync> =
            Box::new(Refusal(get_status(code, text)));
        (name.to_owned(), refusal)
    });
    Service {
        methods: methods.into_iter().collect(),
        streams: HashMap::new(),
    }
}

struct Refusal(Status);

#[async_trait]
impl MethodHandler for Refusal {
    async fn handler(&self, _: TtrpcContext, _: Request) -> TtrpcResult<Response> {
        Ok(Response {
            status: MessageField::some(self.0.clone()),
            ..Default::default()
        })
    }
}

/// A stream of messages within bounds.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    reading: Reading,
    /// What is to be read before the stream: a header, and sometimes all of a message.
    pending: Vec<u8>,
    /// What is written.
    answers: Messages,
    /// How many calls have been read and not been answered.
    calls: usize,
    /// Counts the open connections.
    _open: Arc<()>,
}

/// Where in a message the reader is.
#[derive(Debug)]
enum Reading {
    Header {
        bytes: [u8; MESSAGE_HEADER_LENGTH],
        length: usize,
    },
    /// What is left is passed on.
    Content { left: usize },
    /// What is left belongs to a message that has been refused.
    Rest { left: usize, until: Pin<Box<Sleep>> },
}

impl Reading {
    const BEGIN: Self = Self::Header {
        bytes: [0; MESSAGE_HEADER_LENGTH],
        length: 0,
    };
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, open: Arc<()>) -> Self {
        Self {
            stream,
            reading: Reading::BEGIN,
            pending: Vec::new(),
            answers: Messages::default(),
            calls: 0,
            _open: open,
        }
    }

    /// Decides about a message whose header has come.
    fn begin(&mut self, bytes: [u8; MESSAGE_HEADER_LENGTH]) {
        let header = MessageHeader::from(bytes);
        let left = usize::try_from(header.length).unwrap_or(usize::MAX);
        let refusal = if left > MESSAGE_LENGTH_MAX {
            Some(TOO_LONG)
        } else if is_answered(&header) && self.calls >= MAX_CALLS {
            Some(TOO_MANY)
        } else {
            None
        };
        // Every one of these is answered, a refusal too.
        let refused = refusal.map(|method| refused(header.stream_id, method));
        self.calls += usize::from(is_answered(&header) || refused.is_some());
        self.reading = match &refused {
            None if left == 0 => Reading::BEGIN,
            None => Reading::Content { left },
            Some(_) if left == 0 => Reading::BEGIN,
            Some(_) => Reading::Rest {
                left,
                until: Box::pin(sleep(REST_BOUND)),
            },
        };
        self.pending = refused.unwrap_or_else(|| bytes.to_vec());
    }
}

/// Whether the server answers a message, and with one of its own: it has no call with streams.
fn is_answered(header: &MessageHeader) -> bool {
    let is_call = matches!(header.type_, MESSAGE_TYPE_REQUEST | MESSAGE_TYPE_DATA);
    is_call || header.stream_id.is_multiple_of(2)
}

/// A message in the place of one that is refused.
fn refused(stream_id: u32, method: &str) -> Vec<u8> {
    let request = Request {
        service: SERVICE.to_owned(),
        method: method.to_owned(),
        ..Default::default()
    };
    let content = request.write_to_bytes().unwrap_or_default();
    let length = u32::try_from(content.len()).unwrap_or_default();
    let mut message = Vec::from(MessageHeader::new_request(stream_id, length));
    message.extend(content);
    message
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.pending.is_empty() {
                let length = this.pending.len().min(buffer.remaining());
                buffer.put_slice(&this.pending[..length]);
                this.pending.drain(..length);
                return Poll::Ready(Ok(()));
            }
            match &mut this.reading {
                Reading::Header { bytes, length } => {
                    let mut part = ReadBuf::new(&mut bytes[*length..]);
                    ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
                    let read = part.filled().len();
                    if read == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    *length += read;
                    if *length == MESSAGE_HEADER_LENGTH {
                        let bytes = *bytes;
                        this.begin(bytes);
                    }
                }
                Reading::Content { left } => {
                    let room = (*left).min(buffer.remaining());
                    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
                    ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
                    let read = part.filled().len();
                    buffer.advance(read);
                    *left -= read;
                    if *left == 0 {
                        this.reading = Reading::BEGIN;
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Rest { left, until } => {
                    let mut dropped = [0; 4096];
                    let room = (*left).min(dropped.len());
                    let mut part = ReadBuf::new(&mut dropped[..room]);
                    match Pin::new(&mut this.stream).poll_read(context, &mut part)? {
                        Poll::Ready(()) if part.filled().is_empty() => return Poll::Ready(Ok(())),
                        Poll::Ready(()) => *left -= part.filled().len(),
                        Poll::Pending => {
                            // Nothing more is read, so the connection ends.
                            return until.as_mut().poll(context).map(Ok);
                        }
                    }
                    if *left == 0 {
                        this.reading = Reading::BEGIN;
                    }
                }
            }
        }
    }
}

/// Follows a stream of whole messages by their headers.
#[derive(Debug, Default)]
struct Messages {
    header: Vec<u8>,
    /// What is left of a message's content.
    left: usize,
}

impl Messages {
    /// Takes note of what was written; how many answers began in it.
    fn follow(&mut self, mut bytes: &[u8]) -> usize {
        let mut answers = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let (part, rest) =
                bytes.split_at(bytes.len().min(MESSAGE_HEADER_LENGTH - self.header.len()));
            self.header.extend(part);
            bytes = rest;
            if self.header.len() == MESSAGE_HEADER_LENGTH {
                let header = MessageHeader::from(&self.header);
                self.header.clear();
                self.left = usize::try_from(header.length).unwrap_or(usize::MAX);
                answers += usize::from(header.type_ == MESSAGE_TYPE_RESPONSE);
            }
        }
        answers
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        let answers = this.answers.follow(&bytes[..written]);
        this.calls = this.calls.saturating_sub(answers);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn call(stream_id: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap();
        let mut message = Vec::from(MessageHeader::new_request(stream_id, length));
        message.extend(content);
        message
    }

    #[tokio::test]
    async fn calls_within_the_bounds_pass_as_they_are_in_any_pieces() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Bounded::new(server, Arc::default());
        let sent = [call(1, b"first"), call(3, b""), call(5, &[7; 1000])].concat();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(7) {
                client.write_all(piece).await.unwrap();
            }
        });
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn one_call_too_many_is_replaced_until_another_is_answered() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = Bounded::new(server, Arc::default());
        let mut read = async |server: &mut Bounded<_>| {
            client.write_all(&call(1, b"content")).await.unwrap();
            let mut header = [0; MESSAGE_HEADER_LENGTH];
            server.read_exact(&mut header).await.unwrap();
            let length = MessageHeader::from(header).length;
            let mut content = vec![0; usize::try_from(length).unwrap()];
            server.read_exact(&mut content).await.unwrap();
            content
        };
        for _ in 0..MAX_CALLS {
            assert_eq!(read(&mut server).await, b"content");
        }
        let refused = Request::parse_from_bytes(&read(&mut server).await).unwrap();
        assert_eq!((&*refused.service, &*refused.method), (SERVICE, TOO_MANY));
        let mut answer = Vec::from(MessageHeader::new_response(1, 3));
        answer.extend(b"abc");
        // Two answers: that of the refused call, and of one more.
        for byte in answer.repeat(2) {
            server.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(read(&mut server).await, b"content");
    }

    #[tokio::test]
    async fn what_follows_a_call_that_was_too_long_is_read() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut server = Bounded::new(server, Arc::default());
        let sending = tokio::spawn(async move {
            let long = call(1, &vec![0; MESSAGE_LENGTH_MAX + 1]);
            client.write_all(&long).await.unwrap();
            client.write_all(&call(3, b"next")).await.unwrap();
        });
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        assert!(read.ends_with(&call(3, b"next")) && read.len() < 200);
    }
}
