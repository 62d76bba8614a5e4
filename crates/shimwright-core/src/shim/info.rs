//! `-info`: what this runtime is and can do, for containerd and the kubelet.
//!
//! Called before every container, without a container; it touches no engine.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use super::{bootstrap, features, print};
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
            value: features::document().to_string().into_bytes(),
            ..Default::default()
        }),
        ..Default::default()
    };
    print(
        info.write_to_bytes()
            .context("encode the runtime's information")?,
    )
}
