//! containerd's content store, by its gRPC API: the part that does input and output.
//!
//! A fetcher does this, a separate process: a gRPC client would stay in the shim's memory, and the
//! launcher is a fork of a process with an async runtime, so it cannot have another one.

use std::fs::File;
use std::future::Ready;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::task;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{GetContainerRequest, GetImageRequest, ReadContentRequest};
use containerd_client::tonic::codegen::Service;
use containerd_client::tonic::codegen::http::Uri;
use containerd_client::tonic::transport::{Channel, Endpoint};
use containerd_client::tonic::{Request, metadata::MetadataValue};
use hyper_util::rt::TokioIo;
use oci_spec::image::{ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::code::cache;
use crate::code::compiler::{Jail, Left};
use crate::code::image;
use crate::config::node;
use crate::engine::BoxError;
use crate::error;
use crate::process::role;
use crate::sys;

/// The largest manifest or index that is read, in bytes: containerd's own bound.
const MAX_MANIFEST: i64 = 8 << 20;
/// How many bytes of memory of its own a fetcher may have.
const MEMORY: u64 = 256 << 20;
/// How many seconds of processor time.
const SECONDS: u64 = 60;
/// The length of a WebAssembly binary's preamble, in bytes.
const PREAMBLE: i64 = 8;
/// The size that stands for all of some content.
const ALL: i64 = 0;

/// Where a container's image is found.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The path of containerd's gRPC socket.
    pub(crate) address: String,
    /// The containerd namespace.
    pub(crate) namespace: String,
}

/// The WebAssembly layer of a container's image.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Its digest, as the OCI image spec writes it.
    digest: String,
    /// How many bytes it has, as its manifest says.
    pub(crate) size: u64,
    /// Its first eight bytes, or all if there are fewer.
    pub(crate) preamble: Vec<u8>,
}

impl Layer {
    /// Its SHA-256 digest.
    ///
    /// # Errors
    ///
    /// That it has a digest of another kind.
    pub(crate) fn digest(&self) -> Result<&str, BoxError> {
        let digest = self.digest.strip_prefix("sha256:");
        digest.ok_or_else(|| format!("{} is no SHA-256 digest", self.digest).into())
    }
}

impl Store {
    /// Finds the WebAssembly layer of the image that container `id` was made from; `None` if the
    /// image has no such layer or the container no image.
    ///
    /// Launcher process. The layer itself is not read: native code may be there for it.
    ///
    /// # Errors
    ///
    /// The fetcher's reason.
    pub(crate) fn layer(
        &self,
        id: &str,
        fetching: &Fetching<'_>,
    ) -> Result<Option<Layer>, BoxError> {
        let found = self.ask(FIND, id, fetching)?;
        Ok(serde_json::from_reader(io::BufReader::new(found))?)
    }

    /// Fetches a layer into memory that nobody can change.
    ///
    /// Launcher process.
    ///
    /// # Errors
    ///
    /// The fetcher's reason; also that the content is not what its digest says.
    pub(crate) fn fetch(&self, layer: &Layer, fetching: &Fetching<'_>) -> Result<File, BoxError> {
        self.ask(FETCH, &layer.digest, fetching)
    }

    /// Runs a fetcher and returns what it has written.
    fn ask(&self, what: &str, about: &str, fetching: &Fetching<'_>) -> Result<File, BoxError> {
        let mut answer = sys::memory::sealable_memfd(c"layer")?;
        let config = fetching.config;
        let jail = Jail {
            uid: config.uid(rustix::process::getpid()),
            memory: MEMORY,
            seconds: SECONDS,
            file: config.module_size.max(MAX_MANIFEST.unsigned_abs()),
        };
        let jail = serde_json::to_string(&jail)?;
        let most = config.module_size.to_string();
        let program = Command::new("/proc/self/exe");
        let mut command = role::command(program, role::FETCHER, fetching.cgroups.clone());
        command
            .args([&self.address, &self.namespace, what, about, &most, &jail])
            .current_dir(fetching.empty)
            .stdin(Stdio::null())
            .stdout(answer.try_clone()?);
        let fetched = role::run(command, fetching.wanted, config.deadline())?;
        fetched.map_err(|failure| failure.to_string())?;
        answer.rewind()?;
        sys::memory::seal(&answer)?;
        Ok(answer)
    }
}

/// What a fetcher may use, and for whom it works.
#[derive(Debug)]
pub(crate) struct Fetching<'a> {
    pub(crate) config: &'a node::Compile,
    /// The cgroups it joins; none for what is small.
    pub(crate) cgroups: Cgroups,
    pub(crate) empty: &'a Path,
    /// Hung up when nobody waits for it any more.
    pub(crate) wanted: BorrowedFd<'a>,
}

/// What a fetcher is asked for: which layer a container's image has, as JSON, or the layer itself.
const FIND: &str = "find";
const FETCH: &str = "fetch";

/// The fetcher's whole life: writes the answer to standard output.
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let mut argument = || args.next().unwrap_or_default();
    let (address, namespace, what, about) = (argument(), argument(), argument(), argument());
    let (most, jail) = (argument(), argument());
    let fetched = || -> Result<(), BoxError> {
        let jail: Jail = serde_json::from_str(&jail)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let socket = connect(&address)?;
        let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        // From here on there is nothing but that socket and the output.
        jail.enter(Left::Socket)?;
        runtime.block_on(async {
            let connection = Connection::open(socket, &namespace).await?;
            match what.as_str() {
                FIND => Ok(serde_json::to_writer(
                    output,
                    &connection.layer(&about).await?,
                )?),
                FETCH => connection.fetch(&about, most.parse()?, &mut output).await,
                _ => Err("a fetcher is the shim's business".into()),
            }
        })
    };
    match fetched() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", error::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Connects to containerd while this process may: its socket is root's.
fn connect(address: &str) -> Result<UnixStream, BoxError> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.is_empty() {
        return Err("containerd has not told its gRPC address".into());
    }
    let socket = UnixStream::connect(path)
        .map_err(|error| format!("cannot connect to containerd at {path}: {error}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Hands out the one connection there is.
struct Connector(Option<UnixStream>);

impl Service<Uri> for Connector {
    type Response = TokioIo<tokio::net::UnixStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.take().ok_or(io::ErrorKind::ConnectionReset.into());
        let socket = socket.and_then(tokio::net::UnixStream::from_std);
        std::future::ready(socket.map(TokioIo::new))
    }
}

struct Connection<'a> {
    channel: Channel,
    namespace: &'a str,
}

impl<'a> Connection<'a> {
    async fn open(socket: UnixStream, namespace: &'a str) -> Result<Self, BoxError> {
        // The address is never used.
        let endpoint = Endpoint::from_static("http://[::]");
        let channel = endpoint
            .connect_with_connector(Connector(Some(socket)))
            .await?;
        Ok(Self { channel, namespace })
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, BoxError> {
        let mut request = Request::new(message);
        let namespace = MetadataValue::try_from(self.namespace)?;
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        Ok(request)
    }

    async fn layer(&self, id: &str) -> Result<Option<Layer>, BoxError> {
        let request = self.request(GetContainerRequest { id: id.to_owned() })?;
        let answer = ContainersClient::new(self.channel.clone())
            .get(request)
            .await?;
        let name = answer.into_inner().container.unwrap_or_default().image;
        if name.is_empty() {
            return Ok(None);
        }
        let request = self.request(GetImageRequest { name })?;
        let answer = ImagesClient::new(self.channel.clone()).get(request).await?;
        let target = answer.into_inner().image.and_then(|image| image.target);
        let target = target.ok_or("the image has no target")?;

        let mut digest = target.digest;
        let mut media_type = MediaType::from(target.media_type.as_str());
        if is_index(&media_type) {
            let index: ImageIndex = self.manifest(&digest).await?;
            let chosen = image::choose(&index)?;
            digest = chosen.digest().to_string();
            media_type = chosen.media_type().clone();
            if is_index(&media_type) {
                return Err("the image's index points to another index".into());
            }
        }
        let manifest: ImageManifest = self.manifest(&digest).await?;
        let Some(layer) = image::layer(&manifest) else {
            return Ok(None);
        };
        let digest = layer.digest().to_string();
        // A range beyond the content's end is an error.
        let size = layer.size();
        let beginning = i64::try_from(size)?.min(PREAMBLE);
        let mut preamble = Vec::new();
        if beginning > 0 {
            self.read(&digest, beginning, PREAMBLE, &mut preamble)
                .await?;
        }
        Ok(Some(Layer {
            digest,
            size,
            preamble,
        }))
    }

    async fn manifest<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<T, BoxError> {
        let mut content = Vec::new();
        self.read(digest, ALL, MAX_MANIFEST, &mut content).await?;
        check(digest, &cache::digest(&content))?;
        Ok(serde_json::from_slice(&content)?)
    }

    async fn fetch(&self, digest: &str, most: i64, wasm: &mut File) -> Result<(), BoxError> {
        self.read(digest, ALL, most, wasm).await?;
        check(
            digest,
            &cache::digest(sys::memory::Mapping::of_file(wasm.as_fd())?.as_ref()),
        )
    }

    /// Reads the first `size` bytes of some content, of which there may be `most`.
    async fn read(
        &self,
        digest: &str,
        size: i64,
        most: i64,
        to: &mut impl Write,
    ) -> Result<(), BoxError> {
        let message = ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size,
        };
        let request = self.request(message)?;
        let answer = ContentClient::new(self.channel.clone())
            .read(request)
            .await?;
        let mut parts = answer.into_inner();
        let mut left = most;
        while let Some(part) = parts.message().await? {
            left -= i64::try_from(part.data.len())?;
            if left < 0 {
                return Err(format!("{digest} is larger than {most} bytes").into());
            }
            to.write_all(&part.data)?;
        }
        Ok(())
    }
}

fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex)
        || media_type.to_string() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

/// The store is trusted to keep content, not to be free of damage.
fn check(expected: &str, found: &str) -> Result<(), BoxError> {
    if expected.strip_prefix("sha256:") == Some(found) {
        return Ok(());
    }
    Err(format!("content of {expected} has digest sha256:{found}").into())
}
