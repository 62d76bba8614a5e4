//! Applications: programs of several components, which a manifest describes.

use std::fmt;
use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::engine::artifact::Artifact;
use crate::engine::workload::Workload;
use crate::engine::{BoxError, Exit, Refusal};
use crate::sys::memory::Mapping;

/// How an engine runs applications. [`Engine::applications`](crate::Engine::applications) returns
/// it.
///
/// An application is a manifest, one or more components, and files. It is in the root file system,
/// or each of its parts is a layer of the image. Core finds it by [`format`](Applications::format),
/// asks [`plan`](Applications::plan) for its parts, opens them inside the root or fetches them, and
/// compiles each component through the cache.
pub trait Applications {
    /// How an application is recognised.
    ///
    /// Launcher process, at every create. It should only return constants.
    fn format(&self) -> ApplicationFormat;

    /// Reads a manifest and returns the parts of the application.
    ///
    /// Called in the planner process, which has no access to the node's files or network, 256 MiB of
    /// memory and 10 seconds. The manifest is the image's, so it may hold anything. What follows
    /// from the plan is checked by core: see [`Plan`].
    ///
    /// `env` is the guest's environment, as [`Workload::env`]: a manifest may have variables. The plan
    /// must depend on nothing but the manifest and this.
    ///
    /// # Errors
    ///
    /// Why the manifest cannot be used. `create` fails with it, so it should name the field.
    fn plan(&self, manifest: &Manifest, env: &[(String, String)]) -> Result<Plan, BoxError>;

    /// Runs the application to its end. The same as [`Engine::run`](crate::Engine::run) for one
    /// program.
    ///
    /// # Errors
    ///
    /// As of `Engine::run`.
    fn run(&self, workload: &Workload<Application>) -> Result<Exit, BoxError>;
}

/// How an application is recognised, in the root file system or by the layers of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplicationFormat {
    /// Paths of manifests in the root, each absolute. The first that exists is used.
    pub manifest_paths: &'static [&'static str],
    /// Media types of manifests: of a layer, or of the image's configuration.
    pub manifest_types: &'static [&'static str],
    /// Media types of layers that are one WebAssembly binary each.
    pub component_types: &'static [&'static str],
    /// Media types of layers that are one file each, which the engine reads.
    pub file_types: &'static [&'static str],
}

/// A manifest, as it is in the image: nobody has checked it.
pub struct Manifest {
    head: Head,
    content: Mapping,
    /// Where the manifest begins in `content`.
    start: usize,
}

/// What is known of a manifest besides its bytes, on its way between processes. It cannot be shown:
/// variables may be secrets.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    origin: String,
    layers: Vec<LayerRecord>,
    /// For the planner.
    env: Vec<(String, String)>,
}

/// A layer of an image that an application may be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer(LayerRecord);

/// [`ImageLayer`] on its way between processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl ImageLayer {
    /// The media type, one of [`ApplicationFormat`].
    pub fn media_type(&self) -> &str {
        &self.0.media_type
    }

    /// The digest, as the OCI image spec writes it: `sha256:` and 64 digits.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("origin", &self.head.origin)
            .field("layers", &self.head.layers)
            .field("length", &self.bytes().len())
            .finish_non_exhaustive()
    }
}

impl Manifest {
    /// A manifest from a path in the root, or with a media type.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new(origin: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self::of_image(origin.into(), Vec::new(), bytes)
    }

    /// The same with the layers of its image.
    pub(crate) fn of_image(origin: String, layers: Vec<LayerRecord>, bytes: Vec<u8>) -> Self {
        Self {
            head: Head {
                origin,
                layers,
                env: Vec::new(),
            },
            content: bytes.into(),
            start: 0,
        }
    }

    /// Adds the environment that a planner gets with it.
    pub(crate) fn set_env(&mut self, env: Vec<(String, String)>) {
        self.head.env = env;
    }

    /// The environment that was added.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.head.env
    }

    /// The path in the root file system, or the media type, by which it was found.
    pub fn origin(&self) -> &str {
        &self.head.origin
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.content.as_ref()[self.start..]
    }

    /// The same as text.
    ///
    /// # Errors
    ///
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str, Refusal> {
        std::str::from_utf8(self.bytes()).map_err(|_| Refusal::new("the manifest is not UTF-8"))
    }

    /// The layers of the image whose media types are those of components or files, in order. None
    /// if the manifest was found in the root.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = ImageLayer> {
        self.head.layers.iter().cloned().map(ImageLayer)
    }

    /// The same layers, for core.
    pub(crate) fn records(&self) -> &[LayerRecord] {
        &self.head.layers
    }

    /// As one stream of bytes: a line of JSON, and the manifest.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BoxError> {
        let mut encoded = serde_json::to_vec(&self.head)?;
        encoded.push(b'\n');
        encoded.extend(self.bytes());
        Ok(encoded)
    }

    /// From what [`encode`](Self::encode) has made.
    pub(crate) fn decode(content: Mapping) -> Result<Self, BoxError> {
        let bytes = content.as_ref();
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or("the manifest has no head")?;
        Ok(Self {
            head: serde_json::from_slice(&bytes[..end])?,
            start: end + 1,
            content,
        })
    }
}

/// The parts of an application, and what it requires of its container.
///
/// Core refuses a plan without a component, with too many parts, with two components or two files
/// of the same name, and with a part that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub(crate) PlanRecord);

/// [`Plan`] on its way from the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanRecord {
    pub(crate) components: Vec<PartRecord>,
    pub(crate) files: Vec<PartRecord>,
    pub(crate) requirements: Vec<Requirement>,
}

/// A component or a file, by the name by which the engine finds it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartRecord {
    pub(crate) name: String,
    pub(crate) source: SourceRecord,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SourceRecord {
    Path(String),
    Layer(String),
}

/// Where a part of an application is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(SourceRecord);

impl Source {
    /// A regular file in the root file system. The path is relative to the root, with or without a
    /// slash in front. Links are followed inside the root only; core refuses a path with `..`.
    pub fn path(path: impl Into<String>) -> Self {
        Self(SourceRecord::Path(path.into()))
    }

    /// A layer of the image, by its digest: `sha256:` and 64 digits. It must be one of
    /// [`Manifest::layers`].
    pub fn layer(digest: impl Into<String>) -> Self {
        Self(SourceRecord::Layer(digest.into()))
    }
}

/// What an application requires of its container. A container that lacks it is refused at create.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Requirement {
    Network,
    RootFileSystem,
}

impl Plan {
    /// A plan without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component. Core compiles it, if the engine has a precompiler.
    #[must_use]
    pub fn component(mut self, name: impl Into<String>, source: Source) -> Self {
        let part = part(name.into(), source);
        self.0.components.push(part);
        self
    }

    /// Adds a file whose content the engine needs, such as a layer with static files.
    ///
    /// Core copies it into memory that nobody can change. The engine can also open files of the
    /// root itself when it runs, as it then is inside the container: do so for large files.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, source: Source) -> Self {
        let part = part(name.into(), source);
        self.0.files.push(part);
        self
    }

    /// The application connects or listens. A container whose limits leave it no network is
    /// refused.
    #[must_use]
    pub fn requires_network(mut self) -> Self {
        self.0.requirements.push(Requirement::Network);
        self
    }

    /// The application reads the root file system when it runs. A container whose limits hide it is
    /// refused.
    #[must_use]
    pub fn requires_root_file_system(mut self) -> Self {
        self.0.requirements.push(Requirement::RootFileSystem);
        self
    }
}

fn part(name: String, Source(source): Source) -> PartRecord {
    PartRecord { name, source }
}

/// An application that is to run: all of its parts, which nobody can change any more.
#[derive(Debug)]
pub struct Application {
    manifest: Manifest,
    components: Vec<Component>,
    files: Files,
}

/// One component of an application.
#[derive(Debug)]
pub struct Component {
    name: String,
    artifact: Artifact,
}

/// Files, one after the other in one piece of memory.
#[derive(Debug)]
pub(crate) struct Files {
    content: Mapping,
    names: Vec<(String, Range<usize>)>,
}

impl Files {
    /// The files with these names and lengths.
    ///
    /// # Errors
    ///
    /// The lengths are not those of the content.
    pub(crate) fn new(
        content: Mapping,
        lengths: impl IntoIterator<Item = (String, usize)>,
    ) -> io::Result<Self> {
        let total = content.as_ref().len();
        let mut names = Vec::new();
        let mut start = 0_usize;
        for (name, length) in lengths {
            let end = start.checked_add(length).filter(|&end| end <= total);
            let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
            names.push((name, start..end));
            start = end;
        }
        Ok(Self { content, names })
    }
}

impl Component {
    /// The name that the plan gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to run.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }
}

impl Application {
    pub(crate) fn new(
        manifest: Manifest,
        components: impl IntoIterator<Item = (String, Artifact)>,
        files: Files,
    ) -> Self {
        let components = components.into_iter();
        Self {
            manifest,
            components: components
                .map(|(name, artifact)| Component { name, artifact })
                .collect(),
            files,
        }
    }

    /// The manifest that [`Applications::plan`] has read.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The components, in the order of the plan.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// The component with this name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        let mut components = self.components.iter();
        components.find(|component| component.name == name)
    }

    /// The files with their names, in the order of the plan.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        let content = self.files.content.as_ref();
        let files = self.files.names.iter();
        files.map(|(name, range)| (name.as_str(), &content[range.clone()]))
    }

    /// The content of the file with this name.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let mut files = self.files();
        files.find_map(|(found, content)| (found == name).then_some(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> LayerRecord {
        LayerRecord {
            media_type: "a/b".to_owned(),
            digest: "sha256:0".to_owned(),
            size: 7,
        }
    }

    #[test]
    fn a_manifest_is_the_same_in_the_next_process() {
        for bytes in [&b""[..], b"\n\n", b"{\"a\": 1}\n\0\xff"] {
            let mut manifest = Manifest::of_image("a\nb".to_owned(), vec![layer()], bytes.to_vec());
            manifest.set_env(vec![("A".to_owned(), "\n".to_owned())]);
            let again = Manifest::decode(manifest.encode().unwrap().into()).unwrap();
            assert!(again.head == manifest.head);
            assert_eq!(again.bytes(), bytes);
        }
        assert!(Manifest::decode(b"{}".to_vec().into()).is_err());
        assert!(Manifest::decode(b"\n".to_vec().into()).is_err());
    }

    #[test]
    fn files_are_found_by_their_names_and_lie_within_the_content() {
        let lengths = |last| {
            [
                ("a".to_owned(), 2),
                ("empty".to_owned(), 0),
                ("b".to_owned(), last),
            ]
        };
        let files = Files::new(b"xxyyy".to_vec().into(), lengths(3)).unwrap();
        let application = Application::new(Manifest::new("/m", Vec::new()), [], files);
        assert_eq!(application.file("a"), Some(&b"xx"[..]));
        assert_eq!(application.file("empty"), Some(&b""[..]));
        assert_eq!(application.file("b"), Some(&b"yyy"[..]));
        assert_eq!(application.file("c"), None);
        assert!(Files::new(b"xxyyy".to_vec().into(), lengths(4)).is_err());
        assert!(Files::new(b"xxyyy".to_vec().into(), lengths(usize::MAX)).is_err());
    }
}
