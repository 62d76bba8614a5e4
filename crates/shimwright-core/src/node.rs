//! The node's own configuration file: what guests may use at most, and the cache.

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
struct Config {
    limits: Limits,
    cache: CacheConfig,
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

/// The limits of every guest of a runtime handler: the node's, narrowed by the handler's.
///
/// Not in the shim process: it reads a file.
///
/// # Errors
///
/// A mistake in the file or a wider limit of the handler, naming the key; or that a file which was
/// named is not there.
pub(crate) fn limits(options: &RuntimeOptions) -> Result<Limits, Error> {
    let limits = Config::read()?.limits;
    limits.narrow(&options.limits, "the runtime options")
}

/// How many bytes of native code the cache keeps at most.
///
/// # Errors
///
/// As for [`limits`].
pub(crate) fn cache_size() -> Result<u64, Error> {
    Ok(Config::read()?.cache.max_size)
}

impl Config {
    fn read() -> Result<Self, Error> {
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
}
