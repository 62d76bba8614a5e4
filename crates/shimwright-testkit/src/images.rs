//! The daemon's gRPC side, as far as a shim asks for it: whose image a container was made from, and
//! the content of that image.
//!
//! That is so little that the frames of HTTP/2 (RFC 9113) and the messages are written here by hand.
//! Three methods are called, and their requests tell them apart: each begins with a text, which is
//! the id of a container, the name of an image, or a digest.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The longest frame that every client takes.
const LONGEST_FRAME: usize = 16384;

/// `:status: 200` and `content-type: application/grpc` (RFC 7541: entry 8 of the static table, and
/// entry 31 with a literal value that is not indexed).
const RESPONSE: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// What names of images begin with. No id of a container does.
const IMAGE: &str = "image of ";

/// An image: its manifest and other content, by their digests.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The digest of the manifest.
    pub manifest: String,
    /// All content by digests, which need not be those of the content. Less than 1 MiB each: the
    /// daemon does not wait for a client that is behind.
    pub content: HashMap<String, Vec<u8>>,
}

/// A server of images.
#[derive(Debug)]
pub(crate) struct Images {
    listener: UnixListener,
    server: Option<JoinHandle<()>>,
    store: Arc<Mutex<Store>>,
}

#[derive(Debug, Default)]
struct Store {
    /// The digests of manifests, by the ids of containers.
    manifests: HashMap<String, String>,
    content: HashMap<String, Vec<u8>>,
}

impl Images {
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let accepting = listener.try_clone()?;
        let store: Arc<Mutex<Store>> = Arc::default();
        let served = Arc::clone(&store);
        let server = std::thread::spawn(move || {
            for connection in accepting.incoming() {
                let Ok(connection) = connection else { return };
                let store = Arc::clone(&served);
                // It ends with the connection.
                std::thread::spawn(move || serve(connection, &store));
            }
        });
        Ok(Self {
            listener,
            server: Some(server),
            store,
        })
    }

    /// Says which image the container with this id is made from. Its content takes the place of
    /// other content with the same digests.
    pub(crate) fn insert(&self, id: &str, image: Image) {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.manifests.insert(id.to_owned(), image.manifest);
        store.content.extend(image.content);
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.server.take().map(JoinHandle::join);
    }
}

fn serve(mut connection: UnixStream, store: &Mutex<Store>) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    connection.read_exact(&mut preface)?;
    if preface != PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    send(&mut connection, SETTINGS, 0, [0; 4], &[])?;
    let mut requests: HashMap<[u8; 4], Vec<u8>> = HashMap::new();
    loop {
        // Length, type, flags, stream.
        let mut header = [0; 9];
        connection.read_exact(&mut header)?;
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = u64::from(u32::from_be_bytes([0, a, b, c]));
        let mut payload = Vec::new();
        (&mut connection).take(length).read_to_end(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => send(&mut connection, SETTINGS, ACK, [0; 4], &[])?,
            DATA => {
                requests.entry(stream).or_default().extend(payload);
                if flags & END_STREAM != 0 {
                    let request = requests.remove(&stream).unwrap_or_default();
                    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
                    let message = answer(&store, &request);
                    drop(store);
                    send(&mut connection, HEADERS, END_HEADERS, stream, RESPONSE)?;
                    for part in message.chunks(LONGEST_FRAME) {
                        send(&mut connection, DATA, 0, stream, part)?;
                    }
                    let end = END_HEADERS | END_STREAM;
                    send(&mut connection, HEADERS, end, stream, TRAILERS)?;
                }
            }
            _ => {}
        }
    }
}

/// The message that answers a request, with its prefix: a byte that says that it is not compressed,
/// and its length. An empty answer says that there is no such thing.
fn answer(store: &Store, request: &[u8]) -> Vec<u8> {
    let request = request.get(5..).unwrap_or_default();
    let asked = text(request);
    let manifest = |id: &str| store.manifests.get(id);
    let message = if manifest(&asked).is_some() {
        // `GetContainerResponse`, `Container`.
        field(1, &field(3, format!("{IMAGE}{asked}").as_bytes()))
    } else if let Some(manifest) = asked.strip_prefix(IMAGE).and_then(manifest) {
        // `GetImageResponse`, `Image`, `Descriptor`.
        let media_type = b"application/vnd.oci.image.manifest.v1+json";
        let target = [field(1, media_type), field(2, manifest.as_bytes())].concat();
        field(1, &field(3, &target))
    } else if let Some(content) = store.content.get(&asked) {
        // `ReadContentResponse`
        field(2, first(content, request))
    } else {
        Vec::new()
    };
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

/// The first field of a message, which is a text.
fn text(message: &[u8]) -> String {
    let Some((b"\x0a", rest)) = message.split_at_checked(1) else {
        return String::new();
    };
    let (length, rest) = varint(rest);
    let bytes = rest.get(..length).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of some content that a `ReadContentRequest` asks for: the size is its third field, and
/// 0, which stands for all, is not written.
fn first<'a>(content: &'a [u8], request: &[u8]) -> &'a [u8] {
    let (length, rest) = varint(request.get(1..).unwrap_or_default());
    match rest.get(length..).and_then(|rest| rest.split_first()) {
        Some((0x18, size)) => content.get(..varint(size).0).unwrap_or(content),
        _ => content,
    }
}

fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, &bytes[index + 1..]);
        }
    }
    (value, &[])
}

/// A field with a length, as Protocol Buffers encode it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        encoded.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    encoded.push(u8::try_from(length).unwrap_or_default());
    encoded.extend(bytes);
    encoded
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
