//! Images as OCI archives, written without a registry and without other tools.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Context, Result};

/// What `ctr image import` reads.
pub struct Image {
    /// The name with its tag.
    pub name: String,
    /// What it is for.
    pub platform: Platform,
    /// What it holds.
    pub content: Content,
    /// The program and its arguments.
    pub entrypoint: Vec<String>,
    /// Variables, each as `NAME=value`.
    pub env: Vec<String>,
    /// As `UID:GID`, or empty.
    pub user: String,
}

/// The platform of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// The platform of this machine.
    Linux,
    /// `wasi/wasm`.
    Wasm,
}

impl Platform {
    /// Operating system and architecture, in Go's words.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Wasm => ("wasi", "wasm"),
            Self::Linux => (
                "linux",
                match std::env::consts::ARCH {
                    "x86_64" => "amd64",
                    "aarch64" => "arm64",
                    other => other,
                },
            ),
        }
    }
}

/// The content of an image.
pub enum Content {
    /// A root file system in one tar layer.
    Files(Vec<Entry>),
    /// Layers that are no file systems, such as a program, each with its media type; containerd
    /// 1.7.7 and later.
    Layers(Vec<(&'static str, Vec<u8>)>),
}

/// One file of a root file system; its directories are made as needed.
#[derive(Clone)]
pub struct Entry {
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

impl Entry {
    /// An executable file at `path`, relative to the root.
    pub fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode: 0o755,
            bytes: bytes.into(),
        }
    }

    /// An empty directory.
    pub fn directory(path: &str) -> Self {
        Self {
            path: format!("{path}/"),
            mode: 0o755,
            bytes: Vec::new(),
        }
    }
}

impl Image {
    /// An image for this machine's own platform that runs `entrypoint` in a root of `files`.
    pub fn of_files(name: &str, entrypoint: &[&str], files: Vec<Entry>) -> Self {
        Self {
            name: name.to_owned(),
            platform: Platform::Linux,
            content: Content::Files(files),
            entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            user: String::new(),
        }
    }

    /// An image that is nothing but the program.
    pub fn of_wasm_layer(name: &str, file: &str, wasm: Vec<u8>) -> Self {
        Self::of_layers(name, file, vec![("application/wasm", wasm)])
    }

    /// An image of layers that are no file systems, each with its media type.
    pub fn of_layers(name: &str, file: &str, layers: Vec<(&'static str, Vec<u8>)>) -> Self {
        Self {
            name: name.to_owned(),
            platform: Platform::Wasm,
            content: Content::Layers(layers),
            entrypoint: vec![file.to_owned()],
            env: Vec::new(),
            user: String::new(),
        }
    }

    /// Writes the archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let doing = format!("write the image {}", path.display());
        let file = File::create(path).context(&doing)?;
        self.write_to(file).context(&doing)
    }

    fn write_to(&self, target: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(target);
        append(
            &mut archive,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;

        let (layers, diff_ids) = match &self.content {
            Content::Files(entries) => {
                let layer = tar_of(entries)?;
                let diff_ids = vec![digest(&layer)];
                (
                    vec![("application/vnd.oci.image.layer.v1.tar", layer)],
                    diff_ids,
                )
            }
            // Nothing is unpacked from such layers, hence no diff ids.
            Content::Layers(layers) => (layers.clone(), Vec::new()),
        };
        // Also for programs as layers: `ctr run` refuses `application/vnd.wasm.config.v0+json`.
        let config_type = "application/vnd.oci.image.config.v1+json";
        let (os, architecture) = self.platform.names();
        let config = json!({
            "os": os,
            "architecture": architecture,
            "config": { "Entrypoint": self.entrypoint, "Env": self.env, "User": self.user },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let layers = layers.iter();
        let layers = layers.map(|(media_type, layer)| append_blob(&mut archive, media_type, layer));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let config = append_blob(&mut archive, config_type, config.to_string().as_bytes())?;
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config,
            "layers": layers,
        });
        let mut manifest =
            append_blob(&mut archive, manifest_type, manifest.to_string().as_bytes())?;
        manifest["platform"] = json!({ "os": os, "architecture": architecture });
        manifest["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        append(&mut archive, "index.json", index.to_string().as_bytes())?;
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

/// `sha256:` and the digest.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| {
        format!("{text}{byte:02x}")
    })
}

/// Adds a blob and returns its descriptor.
fn append_blob<W: Write>(
    archive: &mut tar::Builder<W>,
    media_type: &str,
    bytes: &[u8],
) -> Result<Value> {
    let digest = digest(bytes);
    append(
        archive,
        &format!("blobs/{}", digest.replace(':', "/")),
        bytes,
    )?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(u64::try_from(bytes.len())?);
    Ok(archive.append_data(&mut header, path, bytes)?)
}

fn tar_of(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for Entry { path, mode, bytes } in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(u64::try_from(bytes.len())?);
        layer.append_data(&mut header, path.trim_start_matches('/'), bytes.as_slice())?;
    }
    Ok(layer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn files(image: &Image) -> BTreeMap<String, Vec<u8>> {
        let mut bytes = Vec::new();
        image.write_to(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, bytes)
        });
        entries.collect()
    }

    fn follow(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = files[&format!("blobs/{}", digest.replace(':', "/"))].clone();
        assert_eq!(descriptor["size"].as_u64().unwrap(), bytes.len() as u64);
        bytes
    }

    #[test]
    fn a_wasm_layer_is_the_program_and_has_no_diff_id() {
        let files = files(&Image::of_wasm_layer(
            "example/x:1",
            "x.wasm",
            b"\0asm".to_vec(),
        ));
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let descriptor = &index["manifests"][0];
        assert_eq!(
            descriptor["platform"],
            json!({ "os": "wasi", "architecture": "wasm" })
        );
        let manifest: Value = serde_json::from_slice(&follow(&files, descriptor)).unwrap();
        assert_eq!(follow(&files, &manifest["layers"][0]), b"\0asm");
        let config: Value = serde_json::from_slice(&follow(&files, &manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([]));
    }

    #[test]
    fn a_plain_image_holds_its_files() {
        let entries = vec![Entry::directory("tmp"), Entry::file("bin/x", "text")];
        let files = files(&Image::of_files("example/x:1", &["/bin/x"], entries));
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: Value =
            serde_json::from_slice(&follow(&files, &index["manifests"][0])).unwrap();
        let layer = follow(&files, &manifest["layers"][0]);
        let mut layer = tar::Archive::new(layer.as_slice());
        let paths: Vec<_> = layer
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().into_owned())
            .collect();
        assert_eq!(paths, [Path::new("tmp/"), Path::new("bin/x")]);
    }
}
