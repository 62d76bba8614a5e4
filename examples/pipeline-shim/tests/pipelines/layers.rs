//! Pipelines whose parts are layers of the image.

use sha2::{Digest, Sha256};
use shimwright_guests::{CAT, HELLO, IDLE};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Image};

use crate::{GREETING, containerd, finish, metrics, refused, run};

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const PIPELINE: &str = "application/vnd.shimwright.pipeline.v1+json";
const WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
const DATA: &str = "application/vnd.wasm.content.layer.v1+data";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An image in the making: the descriptors of its layers.
#[derive(Default)]
struct Layers {
    layers: Vec<serde_json::Value>,
    image: Image,
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold("sha256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}

impl Layers {
    fn with(mut self, media_type: &str, bytes: &[u8]) -> Self {
        let descriptor = self.blob(media_type, bytes);
        self.layers.push(descriptor);
        self
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = digest(bytes);
        self.image.content.insert(digest.clone(), bytes.to_vec());
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn image(self) -> Image {
        self.image_with(CONFIG, b"{}")
    }

    /// The image with this configuration.
    fn image_with(mut self, media_type: &str, config: &[u8]) -> Image {
        let config = self.blob(media_type, config);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "config": config, "layers": self.layers,
        });
        let manifest = self.blob("", manifest.to_string().as_bytes());
        self.image.manifest = manifest["digest"].as_str().unwrap().to_owned();
        self.image
    }
}

/// A manifest with these layers as stages and, if there is one, as the input.
fn pipeline(stages: &[&[u8]], input: Option<&[u8]>) -> Vec<u8> {
    let place = |bytes: &[u8]| serde_json::json!({ "digest": digest(bytes) });
    let stages = stages.iter().enumerate().map(|(index, stage)| {
        serde_json::json!({ "name": format!("stage-{index}"), "source": place(stage) })
    });
    let mut manifest = serde_json::json!({ "stages": stages.collect::<Vec<_>>() });
    if let Some(input) = input {
        manifest["input"] = place(input);
    }
    manifest.to_string().into_bytes()
}

/// A container of a pod whose root is empty, of this image.
fn bundle(containerd: &Containerd, id: &str, image: Image) -> Bundle {
    containerd.image(id, image);
    let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
    bundle.args(&["/"]).unwrap()
}

#[test]
fn a_pipeline_of_layers_runs_and_is_compiled_once() {
    let containerd = containerd();
    let image = || {
        let layers = Layers::default()
            .with(TAR, b"no tar")
            .with(WASM, CAT.wasm());
        let stages = pipeline(&[HELLO.wasm(), CAT.wasm()], None);
        layers
            .with(PIPELINE, &stages)
            .with(WASM, HELLO.wasm())
            .image()
    };
    let first = bundle(&containerd, "a", image());
    let shim = containerd.start(&first).unwrap();
    let mut hits = Vec::new();
    for mut bundle in [first, bundle(&containerd, "b", image())] {
        let output = bundle.stdout().unwrap();
        shim.create(&bundle).unwrap();
        hits.push(metrics(&containerd, bundle.id())["shimwright_cache_hit"]);
        shim.start(bundle.id()).unwrap();
        assert_eq!(shim.wait(bundle.id()).unwrap().exit_status, 0);
        assert_eq!(output.text().unwrap(), GREETING);
        shim.delete(bundle.id()).unwrap();
    }
    assert_eq!(hits, [0.0, 1.0]);
    finish(&containerd, &shim);
}

#[test]
fn the_configuration_may_be_the_manifest_and_files_are_layers() {
    let containerd = containerd();
    let text = "x".repeat(70_000) + "\n";
    let layers = Layers::default()
        .with(DATA, b"another")
        .with(DATA, text.as_bytes());
    let stages = pipeline(&[CAT.wasm()], Some(text.as_bytes()));
    let image = layers.with(WASM, CAT.wasm()).image_with(PIPELINE, &stages);
    let bundle = bundle(&containerd, "a", image);
    let shim = containerd.start(&bundle).unwrap();
    assert_eq!(run(&shim, bundle).1, text + "<end of input>\n");
    finish(&containerd, &shim);
}

#[test]
fn an_exec_does_not_run_the_application_of_layers() {
    let containerd = containerd();
    let layers = Layers::default().with(WASM, IDLE.wasm());
    let image = layers
        .with(PIPELINE, &pipeline(&[IDLE.wasm()], None))
        .image();
    let mut waiting = bundle(&containerd, "a", image);
    let output = waiting.stdout().unwrap();
    let shim = containerd.start(&waiting).unwrap();
    shim.create(&waiting).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    let process = serde_json::json!({
        "args": ["/"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
    });
    let exec = shim
        .add_exec("a", "e", &process, Default::default())
        .unwrap();
    let reason = refused(exec.start(), Code::INVALID_ARGUMENT);
    let expected = "an application, which only a container's first process runs";
    assert!(reason.contains(expected), "{reason}");
    exec.delete().unwrap();
    shim.kill("a", libc::SIGKILL).unwrap();
    shim.wait("a").unwrap();
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// A module, a file, and a pipeline of these stages and this input.
fn with(stages: &[&[u8]], input: Option<&[u8]>) -> Layers {
    let layers = Layers::default().with(WASM, HELLO.wasm());
    let layers = layers.with(DATA, b"text");
    layers.with(PIPELINE, &pipeline(stages, input))
}

/// The image of a pipeline, in which some content is not what its digest says.
fn damaged(of: &[u8], to: &[u8]) -> Image {
    let mut image = with(&[HELLO.wasm()], Some(b"text")).image();
    let content = image.content.get_mut(&digest(of)).unwrap();
    *content = to.to_vec();
    image
}

/// Images that are not what their manifests say, and why.
fn wrong() -> Vec<(Image, Code, &'static str)> {
    let (hello, cat) = (HELLO.wasm(), CAT.wasm());
    let (invalid, internal) = (Code::INVALID_ARGUMENT, Code::INTERNAL);
    let lacking = with(&[hello, cat], None).image();
    let text = with(&[b"text"], None).image();
    let mut longer = with(&[hello], Some(b"text"));
    longer.layers[1]["size"] = 5.into();
    let two = with(&[hello], None).with(PIPELINE, b"{}").image();
    let broken = Layers::default().with(PIPELINE, b"{").image();
    let none = Layers::default().with(DATA, hello).image();
    let many = |layers: Layers, n: u8| layers.with(WASM, &[n]);
    let many = (0..129).fold(Layers::default().with(PIPELINE, b"{}"), many);
    let manifest = pipeline(&[hello], Some(b"text"));
    let fetched = "component \"stage-0\": cannot fetch the layer: content of";
    vec![
        (lacking, invalid, "component \"stage-1\": the digest"),
        (
            text,
            invalid,
            "component \"stage-0\": not a WebAssembly binary",
        ),
        (damaged(hello, cat), internal, fetched),
        (
            damaged(b"text", b"tex_"),
            internal,
            "files: content of sha256:",
        ),
        (
            longer.image(),
            internal,
            "has 4 bytes, but 5 by the image's manifest",
        ),
        (two, internal, "several layers that are manifests"),
        (broken, invalid, "pipeline.v1+json: EOF while parsing"),
        (none, invalid, "no such file or directory"),
        (damaged(&manifest, b"{}"), internal, "content of sha256:"),
        (many.image(), internal, "more than 128 components"),
    ]
}

#[test]
fn layers_that_are_not_what_the_manifests_say_are_refused() {
    let containerd = containerd();
    let good = bundle(&containerd, "good", with(&[HELLO.wasm()], None).image());
    let shim = containerd.start(&good).unwrap();
    for (index, (image, code, reason)) in wrong().into_iter().enumerate() {
        let bundle = bundle(&containerd, &index.to_string(), image);
        let found = refused(shim.create(&bundle), code);
        assert!(found.contains(reason), "{index}: {found}");
    }
    finish(&containerd, &shim);
}
