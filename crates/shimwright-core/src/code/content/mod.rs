//! containerd's content store, by its gRPC API: the part that does input and output.
//!
//! A fetcher does this, a separate process: a gRPC client would stay in the shim's memory, and the
//! launcher is a fork of a process with an async runtime, so it cannot have another one.

mod connection;

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use self::connection::Connection;
use crate::cgroup::Cgroups;
use crate::code::application::LayerTypes;
use crate::code::compiler::{Jail, Left};
use crate::config::node;
use crate::engine::BoxError;
use crate::engine::application::LayerRecord;
use crate::error;
use crate::process::role;
use crate::sys;

/// The largest manifest or index that is read, in bytes: containerd's own bound.
const MAX_MANIFEST: i64 = 8 << 20;
/// How many bytes of memory of its own a fetcher may have.
const MEMORY: u64 = 256 << 20;
/// How many seconds of processor time.
const SECONDS: u64 = 60;

/// Where a container's image is found.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The path of containerd's gRPC socket.
    pub(crate) address: String,
    /// The containerd namespace.
    pub(crate) namespace: String,
}

/// What a container's image has to run.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing, or the container has no image.
    Nothing,
    /// One WebAssembly binary.
    Layer(Layer),
    /// The layers of an application, of which only the manifest has been read.
    Application(ImageApplication),
}

/// An application whose parts are layers.
#[derive(Debug)]
pub(crate) struct ImageApplication {
    /// The media type of the manifest.
    pub(crate) media_type: String,
    pub(crate) manifest: Vec<u8>,
    /// Components and files.
    pub(crate) layers: Vec<Layer>,
}

/// The first line of the answer of a fetcher; the manifest of an application follows.
#[derive(Debug, Serialize, Deserialize)]
enum Head {
    Nothing,
    Layer(Layer),
    Application {
        media_type: String,
        layers: Vec<Layer>,
    },
}

/// A WebAssembly layer of a container's image, or another one that an application needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    media_type: String,
    /// Its digest, as the OCI image spec writes it.
    digest: String,
    /// How many bytes it has, as its manifest says.
    pub(crate) size: u64,
    /// Its first eight bytes, or all if there are fewer; none of what is no component.
    pub(crate) preamble: Vec<u8>,
}

impl Layer {
    /// What an engine is told of it.
    pub(crate) fn record(&self) -> LayerRecord {
        LayerRecord {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
        }
    }

    /// Whether it has this digest, as the OCI image spec writes it.
    pub(crate) fn is(&self, digest: &str) -> bool {
        self.digest == digest
    }

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
    /// Finds what the image that container `id` was made from has to run: an application, by the
    /// `types` of its layers, or one WebAssembly binary.
    ///
    /// Launcher process. Only the manifest of an application is read: native code may be there for
    /// the rest.
    ///
    /// # Errors
    ///
    /// The fetcher's reason.
    pub(crate) fn find(
        &self,
        id: &str,
        types: &LayerTypes,
        fetching: &Fetching<'_>,
    ) -> Result<Found, BoxError> {
        let types = serde_json::to_string(types)?;
        let mut answer = io::BufReader::new(self.ask(FIND, [id, &types], fetching)?);
        let mut head = Vec::new();
        answer.read_until(b'\n', &mut head)?;
        Ok(match serde_json::from_slice(&head)? {
            Head::Nothing => Found::Nothing,
            Head::Layer(layer) => Found::Layer(layer),
            Head::Application { media_type, layers } => {
                let mut manifest = Vec::new();
                answer.read_to_end(&mut manifest)?;
                Found::Application(ImageApplication {
                    media_type,
                    manifest,
                    layers,
                })
            }
        })
    }

    /// Fetches layers into memory that nobody can change, one after the other.
    ///
    /// Launcher process.
    ///
    /// # Errors
    ///
    /// The fetcher's reason; also that the content is not what its digest and its size say.
    pub(crate) fn fetch(
        &self,
        layers: &[&Layer],
        fetching: &Fetching<'_>,
    ) -> Result<File, BoxError> {
        let wanted = layers.iter().map(|layer| (&*layer.digest, layer.size));
        let wanted = serde_json::to_string(&wanted.collect::<Vec<_>>())?;
        self.ask(FETCH, [&wanted, ""], fetching)
    }

    /// Runs a fetcher and returns what it has written.
    fn ask(&self, what: &str, about: [&str; 2], fetching: &Fetching<'_>) -> Result<File, BoxError> {
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
            .args([&self.address, &self.namespace, &most, &jail, what])
            .args(about)
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

/// What a fetcher is asked for: what a container's image has, by the types of layers, or layers.
const FIND: &str = "find";
const FETCH: &str = "fetch";

/// The fetcher's whole life: writes the answer to standard output.
pub(crate) fn main(mut args: impl Iterator<Item = String>) -> ExitCode {
    let mut argument = || args.next().unwrap_or_default();
    let (address, namespace, most, jail) = (argument(), argument(), argument(), argument());
    let (what, about, types) = (argument(), argument(), argument());
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
                FIND => {
                    let types = serde_json::from_str(&types)?;
                    let (head, manifest) = connection.find(&about, &types).await?;
                    serde_json::to_writer(&output, &head)?;
                    output.write_all(b"\n")?;
                    Ok(output.write_all(&manifest)?)
                }
                FETCH => {
                    let layers: Vec<(String, u64)> = serde_json::from_str(&about)?;
                    connection.fetch(&layers, most.parse()?, &mut output).await
                }
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
