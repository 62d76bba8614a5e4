//! Decides from its manifest which layers of an image are WebAssembly, without input or output.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use crate::error::Error;

/// Media types of layers that are one WebAssembly binary each.
const LAYER_TYPES: [&str; 3] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

/// The manifest of an index to use: the one for `wasi/wasm`, or the only one.
///
/// # Errors
///
/// `Invalid` if there is no such manifest.
pub(crate) fn choose(index: &ImageIndex) -> Result<&Descriptor, Error> {
    let is_wasm = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|platform| {
            platform.os().to_string() == "wasi" || platform.architecture().to_string() == "wasm"
        })
    };
    match index.manifests().as_slice() {
        [only] => Ok(only),
        all => all.iter().find(is_wasm).ok_or_else(|| {
            Error::invalid("the image has several manifests and none is for platform wasi/wasm")
        }),
    }
}

/// The layer to run: the first that is WebAssembly; `None` if the image has none.
pub(crate) fn layer(manifest: &ImageManifest) -> Option<&Descriptor> {
    manifest.layers().iter().find(|layer| {
        let media_type = layer.media_type().to_string();
        LAYER_TYPES.contains(&media_type.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(layers: &[&str]) -> ImageManifest {
        let digest = format!("sha256:{}", "0".repeat(64));
        let descriptor = |media_type: &str| {
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#)
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|media_type| descriptor(media_type))
            .collect();
        serde_json::from_str(&format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.wasm.config.v0+json"),
            layers.join(",")
        ))
        .unwrap()
    }

    #[test]
    fn the_first_wasm_layer_is_run() {
        let tar = "application/vnd.oci.image.layer.v1.tar";
        let found = manifest(&[tar, "application/wasm", LAYER_TYPES[1]]);
        assert_eq!(
            layer(&found).unwrap().media_type().to_string(),
            "application/wasm"
        );
        assert!(layer(&manifest(&[tar])).is_none());
    }

    #[test]
    fn each_type_of_wasm_layer_is_found_behind_others() {
        for media_type in LAYER_TYPES {
            let found = manifest(&["application/vnd.oci.image.layer.v1.tar", media_type]);
            let found = layer(&found).map(|layer| layer.media_type().to_string());
            assert_eq!(found.as_deref(), Some(media_type));
        }
    }

    #[test]
    fn the_manifest_for_wasm_is_chosen_from_several() {
        let digest = |n: &str| format!("sha256:{}", n.repeat(64));
        let entry = |n: &str, os: &str, arch: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":1,
                "platform":{{"os":"{os}","architecture":"{arch}"}}}}"#,
                digest(n)
            )
        };
        let index = |entries: &[String]| -> ImageIndex {
            let text = format!(
                r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
                entries.join(",")
            );
            serde_json::from_str(&text).unwrap()
        };
        let both = index(&[entry("0", "linux", "amd64"), entry("1", "wasi", "wasm")]);
        assert_eq!(choose(&both).unwrap().digest().to_string(), digest("1"));
        let only = index(&[entry("2", "linux", "amd64")]);
        assert_eq!(choose(&only).unwrap().digest().to_string(), digest("2"));
        let none = index(&[entry("0", "linux", "amd64"), entry("1", "linux", "arm64")]);
        assert!(choose(&none).is_err());
    }
}
