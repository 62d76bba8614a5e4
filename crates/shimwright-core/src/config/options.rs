//! The runtime options of a task, from containerd's configuration.
//!
//! They are optional, and come as one of two messages: `runtimeoptions.v1.Options`, which carries
//! TOML, from the CRI plugin; `containerd.runc.v1.Options` from Docker, nerdctl and `ctr`.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci::Options as RuncOptions;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::read_bounded;
use crate::engine;
use crate::engine::limits::Limits;
use crate::error::Error;

/// The largest options file, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// The settings of a node's runtime handler.
///
/// The names are those of the runc shim's options: a configuration stays valid when only the runtime
/// type changes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "PascalCase")]
pub(crate) struct RuntimeOptions {
    /// systemd creates the cgroups. Must match the kubelet's driver.
    pub(crate) systemd_cgroup: bool,
    /// The cgroup of the shim process itself.
    pub(crate) shim_cgroup: String,
    /// Change the root without `pivot_root(2)`, for a root file system in the initramfs.
    pub(crate) no_pivot_root: bool,
    /// The user that owns the container's pipes, for a container in a user namespace.
    pub(crate) io_uid: u32,
    /// The group that owns them.
    pub(crate) io_gid: u32,
    /// Path of another runc binary. Never executed; must be empty.
    binary_name: String,
    /// The container's processes share the session keyring of the shim.
    pub(crate) no_new_keyring: bool,
    /// Where runc keeps its state. Unused: our state is in the bundle.
    #[serde(rename = "Root")]
    _root: IgnoredAny,
    /// For checkpoints, which are not supported.
    #[serde(rename = "CriuImagePath")]
    _criu_image_path: IgnoredAny,
    #[serde(rename = "CriuWorkPath")]
    _criu_work_path: IgnoredAny,
    #[serde(rename = "CriuPath")]
    _criu_path: IgnoredAny,
    /// The limits of guests.
    #[serde(rename = "limits")]
    pub(crate) limits: Limits,
    /// The engine's own settings.
    #[serde(rename = "engine")]
    pub(crate) engine: serde_json::Map<String, serde_json::Value>,
}

impl RuntimeOptions {
    /// Decodes the message of a request; an absent or empty one means the defaults.
    pub(crate) fn decode(any: Option<&Any>) -> Result<Self, Error> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        // containerd writes bare type names, other clients prefix them with a host.
        let options = match any.type_url.rsplit('/').next() {
            Some("runtimeoptions.v1.Options") => Self::from_toml_message(&any.value),
            Some("containerd.runc.v1.Options") => {
                let options = RuncOptions::parse_from_bytes(&any.value)
                    .map_err(|error| Error::invalid(format!("malformed runc options: {error}")))?;
                Ok(Self {
                    systemd_cgroup: options.systemd_cgroup,
                    shim_cgroup: options.shim_cgroup,
                    no_pivot_root: options.no_pivot_root,
                    io_uid: options.io_uid,
                    io_gid: options.io_gid,
                    no_new_keyring: options.no_new_keyring,
                    binary_name: options.binary_name,
                    ..Self::default()
                })
            }
            _ => Err(Error::invalid(format!(
                "unknown runtime options {}",
                any.type_url
            ))),
        }?;
        if options.binary_name.is_empty() {
            return Ok(options);
        }
        Err(Error::invalid(format!(
            "the option BinaryName is {:?}, but this shim executes no other runtime",
            options.binary_name
        )))
    }

    /// `runtimeoptions.v1.Options`: `type_url` = 1, `config_path` = 2, `config_body` = 3.
    fn from_toml_message(message: &[u8]) -> Result<Self, Error> {
        let mut path = String::new();
        let mut body = Vec::new();
        let mut decode = || -> Result<(), containerd_shim_protos::protobuf::Error> {
            let mut input = CodedInputStream::from_bytes(message);
            while let Some(tag) = input.read_raw_tag_or_eof()? {
                match tag {
                    0x12 => path = input.read_string()?,
                    0x1a => body = input.read_bytes()?,
                    _ => {
                        let wire = containerd_shim_protos::protobuf::rt::WireType::new(tag & 7)
                            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
                        input.skip_field(wire)?;
                    }
                }
            }
            Ok(())
        };
        decode().map_err(|error| Error::invalid(format!("malformed runtime options: {error}")))?;
        if body.is_empty() && !path.is_empty() {
            body = read_bounded(&path, MAX_FILE)
                .map_err(|error| Error::invalid(format!("runtime options {path}: {error}")))?;
        }
        let text = std::str::from_utf8(&body)
            .map_err(|_| Error::invalid("runtime options are not UTF-8"))?;
        toml::from_str(text)
            .map_err(|error| Error::invalid(format!("runtime options: {}", error.message())))
    }

    /// The engine's part.
    pub(crate) fn engine(&self) -> engine::Options {
        engine::Options::new(self.engine.clone())
    }
}

/// Reads options in a message of this type, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(type_url: &str, message: &[u8]) {
    let any = Any {
        type_url: type_url.to_owned(),
        value: message.to_vec(),
        ..Any::default()
    };
    if let Ok(options) = RuntimeOptions::decode(Some(&any)) {
        assert!(options.binary_name.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml_options(body: &str) -> Any {
        let length = u8::try_from(body.len() & 0x7f).unwrap() | 0x80;
        let rest = u8::try_from(body.len() >> 7).unwrap();
        let mut value = vec![0x0a, 1, b'x', 0x1a, length, rest];
        value.extend_from_slice(body.as_bytes());
        Any {
            type_url: "runtimeoptions.v1.Options".into(),
            value,
            ..Any::default()
        }
    }

    #[test]
    fn absent_options_are_the_defaults() {
        assert_eq!(
            RuntimeOptions::decode(None).unwrap(),
            RuntimeOptions::default()
        );
        let empty = Any::default();
        assert_eq!(
            RuntimeOptions::decode(Some(&empty)).unwrap(),
            RuntimeOptions::default()
        );
    }

    #[test]
    fn toml_of_the_cri_plugin_is_read() {
        let any = toml_options("SystemdCgroup = true\n[engine]\nfuel = 7\n");
        let options = RuntimeOptions::decode(Some(&any)).unwrap();
        assert!(options.systemd_cgroup);
        assert_eq!(options.engine["fuel"], 7);
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        let any = toml_options("SystemdCgruop = true\n");
        let error = RuntimeOptions::decode(Some(&any)).unwrap_err().to_string();
        assert!(error.contains("SystemdCgruop"), "{error}");
    }

    #[test]
    fn a_misspelt_limit_is_an_error_that_names_it() {
        let error = |body| {
            let options = RuntimeOptions::decode(Some(&toml_options(body)));
            options.unwrap_err().to_string()
        };
        let text = error("[limits]\ntimelimit = 1\n");
        assert!(text.contains("timelimit"), "{text}");
        let text = error("[limits]\nopen_files = 1\n");
        assert!(text.contains("open_files"), "{text}");
    }

    #[test]
    fn a_configuration_for_runc_can_be_kept() {
        let body = "BinaryName = ''\nCriuImagePath = ''\nCriuPath = ''\nCriuWorkPath = ''\n\
                    IoGid = 7\nIoUid = 6\nNoNewKeyring = true\nNoPivotRoot = true\n\
                    Root = '/run/runc'\nShimCgroup = '/shims'\nSystemdCgroup = true\n";
        let options = RuntimeOptions::decode(Some(&toml_options(body))).unwrap();
        assert_eq!((options.io_uid, options.io_gid), (6, 7));
        assert!(options.no_pivot_root);
        assert_eq!(options.shim_cgroup, "/shims");
    }

    #[test]
    fn another_runtime_is_not_taken_for_ours() {
        let runc = RuncOptions {
            binary_name: "crun".into(),
            ..RuncOptions::default()
        };
        let runc = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: runc.write_to_bytes().unwrap(),
            ..Any::default()
        };
        for any in [runc, toml_options("BinaryName = 'crun'")] {
            let error = RuntimeOptions::decode(Some(&any)).unwrap_err().to_string();
            assert!(error.contains("BinaryName is \"crun\""), "{error}");
        }
    }

    #[test]
    fn options_of_the_runc_shim_are_accepted() {
        // All that any client sends, also what has no meaning here.
        let runc = RuncOptions {
            systemd_cgroup: true,
            no_new_keyring: true,
            io_uid: 6,
            root: "/run/docker/runtime-runc".into(),
            criu_image_path: "/criu".into(),
            ..RuncOptions::default()
        };
        let any = Any {
            type_url: "type.googleapis.com/containerd.runc.v1.Options".into(),
            value: runc.write_to_bytes().unwrap(),
            ..Any::default()
        };
        assert!(RuntimeOptions::decode(Some(&any)).unwrap().systemd_cgroup);
    }

    #[test]
    fn other_messages_and_garbage_are_refused() {
        let other = Any {
            type_url: "a.b.C".into(),
            ..Any::default()
        };
        let error = RuntimeOptions::decode(Some(&other))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "unknown runtime options a.b.C");
        let mut garbage = toml_options("");
        garbage.value = vec![0x1a, 200];
        assert!(RuntimeOptions::decode(Some(&garbage)).is_err());
    }
}
