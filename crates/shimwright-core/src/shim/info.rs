//! `-info`: what this runtime is and can do, for containerd and the kubelet.
//!
//! Called before every container, without a container; it touches no engine.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use serde_json::json;

use super::{bootstrap, print};
use crate::error::{Context, Error};
use crate::runner::host::Host;

/// The type of the features document (containerd, `api/types/runtimeoptions` and typeurl).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub(super) fn run(host: &Host) -> Result<(), Error> {
    let input = bootstrap::stdin()?;
    let options = Any::parse_from_bytes(&input)
        .map_err(|error| Error::invalid(format!("standard input: {error}")))?;
    let info = RuntimeInfo {
        name: format!("io.containerd.{}.v1", host.name),
        version: MessageField::some(RuntimeVersion {
            version: host.version.to_owned(),
            ..Default::default()
        }),
        options: if options.type_url.is_empty() {
            MessageField::none()
        } else {
            MessageField::some(options)
        },
        features: MessageField::some(Any {
            type_url: FEATURES.to_owned(),
            value: features().to_string().into_bytes(),
            ..Default::default()
        }),
        ..Default::default()
    };
    print(
        info.write_to_bytes()
            .context("encode the runtime's information")?,
    )
}

/// OCI runtime spec, `features.md`: what libcontainer does on our behalf.
fn features() -> serde_json::Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } }
        }
    })
}
