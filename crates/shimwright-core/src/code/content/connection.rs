//! One connection to containerd, and what is asked over it.

use std::fs::File;
use std::future::Ready;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
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
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use sha2::{Digest, Sha256};

use super::{Head, Layer, MAX_MANIFEST};
use crate::code::application::{self, LayerTypes, MAX_COMPONENTS, Selection};
use crate::code::cache;
use crate::code::image;
use crate::engine::BoxError;

/// The length of a WebAssembly binary's preamble, in bytes.
const PREAMBLE: i64 = 8;
/// The size that stands for all of some content.
const ALL: i64 = 0;

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

pub(super) struct Connection<'a> {
    channel: Channel,
    namespace: &'a str,
}

impl<'a> Connection<'a> {
    pub(super) async fn open(socket: UnixStream, namespace: &'a str) -> Result<Self, BoxError> {
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

    /// What the image of a container has to run, and the manifest if that is an application.
    pub(super) async fn find(
        &self,
        id: &str,
        types: &LayerTypes,
    ) -> Result<(Head, Vec<u8>), BoxError> {
        let Some(image) = self.image(id).await? else {
            return Ok((Head::Nothing, Vec::new()));
        };
        if let Some(selection) = application::select(&image, types)? {
            return self.application(&selection, types).await;
        }
        let head = match image::layer(&image) {
            Some(layer) => Head::Layer(self.layer(layer, true).await?),
            None => Head::Nothing,
        };
        Ok((head, Vec::new()))
    }

    async fn application(
        &self,
        selection: &Selection<'_>,
        types: &LayerTypes,
    ) -> Result<(Head, Vec<u8>), BoxError> {
        let digest = selection.manifest.digest().to_string();
        let mut manifest = Vec::new();
        self.read(
            &digest,
            ALL,
            application::MAX_MANIFEST.cast_signed(),
            &mut manifest,
        )
        .await?;
        check(&digest, &cache::digest(&manifest))?;
        let mut layers = Vec::new();
        let mut components = 0;
        for descriptor in &selection.layers {
            let media_type = descriptor.media_type().to_string();
            let is_component = types.is_component(&media_type);
            components += usize::from(is_component);
            if components > MAX_COMPONENTS {
                let most = MAX_COMPONENTS;
                return Err(format!("the image has more than {most} components").into());
            }
            layers.push(self.layer(descriptor, is_component).await?);
        }
        let media_type = selection.manifest.media_type().to_string();
        Ok((Head::Application { media_type, layers }, manifest))
    }

    /// The manifest of the image that a container was made from, if it was made from one.
    async fn image(&self, id: &str) -> Result<Option<ImageManifest>, BoxError> {
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
        self.manifest(&digest).await.map(Some)
    }

    /// What is known of a layer, with the first bytes of it if they are to be read.
    async fn layer(&self, layer: &Descriptor, is_wasm: bool) -> Result<Layer, BoxError> {
        let digest = layer.digest().to_string();
        // A range beyond the content's end is an error.
        let size = layer.size();
        let beginning = i64::try_from(size)?.min(PREAMBLE);
        let mut preamble = Vec::new();
        if is_wasm && beginning > 0 {
            self.read(&digest, beginning, PREAMBLE, &mut preamble)
                .await?;
        }
        Ok(Layer {
            media_type: layer.media_type().to_string(),
            digest,
            size,
            preamble,
        })
    }

    async fn manifest<T: serde::de::DeserializeOwned>(&self, digest: &str) -> Result<T, BoxError> {
        let mut content = Vec::new();
        self.read(digest, ALL, MAX_MANIFEST, &mut content).await?;
        check(digest, &cache::digest(&content))?;
        Ok(serde_json::from_slice(&content)?)
    }

    /// Writes layers one after the other, of which there may be `most` bytes.
    pub(super) async fn fetch(
        &self,
        layers: &[(String, u64)],
        most: i64,
        to: &mut File,
    ) -> Result<(), BoxError> {
        let mut left = most;
        for (digest, size) in layers {
            let mut hashing = Hashing {
                hasher: Sha256::new(),
                written: 0,
                to,
            };
            self.read(digest, ALL, left, &mut hashing).await?;
            check(digest, &cache::hex(&hashing.hasher.finalize()))?;
            if hashing.written != *size {
                let written = hashing.written;
                let reason =
                    format!("{digest} has {written} bytes, but {size} by the image's manifest");
                return Err(reason.into());
            }
            left -= i64::try_from(*size)?;
        }
        Ok(())
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

/// Computes the digest of what goes through.
struct Hashing<'a> {
    hasher: Sha256,
    written: u64,
    to: &'a mut File,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
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
