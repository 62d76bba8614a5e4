//! The node's own configuration file: what guests may use at most, the cache, and the shims.

use std::io::ErrorKind;

use serde::Deserialize;

use crate::error::Error;
use crate::options::{RuntimeOptions, read_bounded};
use crate::policy::Limits;

/// Where the file is, unless [`FILE_VARIABLE`] says otherwise.
const FILE: &str = "/etc/shimwright/config.toml";

/// The variable of containerd's environment that names another file.
pub(crate) const FILE_VARIABLE: &str = "SHIMWRIGHT_CONFIG";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    limits: Limits,
    cache: CacheConfig,
    shim: ShimConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ShimConfig {
    share: Share,
}

/// Whose containers share a shim process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Share {
    /// Those of a pod.
    #[default]
    Pod,
    /// All containers of a namespace of containerd.
    Node,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CacheConfig {
    /// How many bytes of native code are kept at most.
    max_size: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { max_size: 4 << 30 }
    }
}

impl Config {
    /// Reads the file. Not in the shim process.
    ///
    /// # Errors
    ///
    /// A mistake in the file, naming the key; or that a file which was named is not there.
    pub(crate) fn read() -> Result<Self, Error> {
        let named = std::env::var(FILE_VARIABLE).ok();
        let path = named.as_deref().unwrap_or(FILE);
        let text = match read_bounded(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => Vec::new(),
            other => other.map_err(|error| Error::invalid(format!("{path}: {error}")))?,
        };
        let text = std::str::from_utf8(&text)
            .map_err(|_| Error::invalid(format!("{path} is not UTF-8")))?;
        toml::from_str(text).map_err(|error| Error::invalid(format!("{path}: {}", error.message())))
    }

    /// The limits of every guest of a runtime handler: the node's, narrowed by the handler's.
    ///
    /// # Errors
    ///
    /// A wider limit of the handler, naming the key.
    pub(crate) fn limits(&self, options: &RuntimeOptions) -> Result<Limits, Error> {
        self.limits.narrow(&options.limits, "the runtime options")
    }

    /// How many bytes of native code the cache keeps at most.
    pub(crate) fn cache_size(&self) -> u64 {
        self.cache.max_size
    }

    /// Whose containers share a shim process.
    pub(crate) fn share(&self) -> Share {
        self.shim.share
    }
}
