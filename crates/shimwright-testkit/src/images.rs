//! The daemon's gRPC side, as far as a shim asks for it: whose image a container was made from.
//!
//! Every question is answered with an empty message: the container has no image. That is so
//! little that the frames of HTTP/2 (RFC 9113) are written here by hand.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

/// Of a frame of settings.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` and `content-type: application/grpc` (RFC 7541: entry 8 of the static table, and
/// entry 31 with a literal value that is not indexed).
const RESPONSE: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// A message that is not compressed and has no bytes.
const EMPTY_MESSAGE: &[u8] = &[0; 5];
/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// A server that knows no images.
#[derive(Debug)]
pub(crate) struct Images {
    listener: UnixListener,
    server: Option<JoinHandle<()>>,
}

impl Images {
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let accepting = listener.try_clone()?;
        let server = std::thread::spawn(move || {
            for connection in accepting.incoming() {
                let Ok(connection) = connection else { return };
                // It ends with the connection.
                std::thread::spawn(move || serve(connection));
            }
        });
        Ok(Self {
            listener,
            server: Some(server),
        })
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.server.take().map(JoinHandle::join);
    }
}

fn serve(mut connection: UnixStream) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    connection.read_exact(&mut preface)?;
    if preface != PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    send(&mut connection, SETTINGS, 0, [0; 4], &[])?;
    loop {
        // Length, type, flags, stream.
        let mut header = [0; 9];
        connection.read_exact(&mut header)?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = u64::from(u32::from_be_bytes([0, a, b, c]));
        io::copy(&mut (&mut connection).take(length), &mut io::sink())?;
        match kind {
            SETTINGS if flags & ACK == 0 => send(&mut connection, SETTINGS, ACK, [0; 4], &[])?,
            DATA if flags & END_STREAM != 0 => {
                send(&mut connection, HEADERS, END_HEADERS, stream, RESPONSE)?;
                send(&mut connection, DATA, 0, stream, EMPTY_MESSAGE)?;
                send(
                    &mut connection,
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    stream,
                    TRAILERS,
                )?;
            }
            _ => {}
        }
    }
}

fn send(
    connection: &mut UnixStream,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
    payload: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .map_err(io::Error::other)?
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream);
    frame.extend(payload);
    connection.write_all(&frame)
}
