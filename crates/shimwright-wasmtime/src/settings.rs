//! How HTTP is served, as the container's environment says.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use shimwright_core::BoxError;

/// The address to listen on; the second name is the one that other shims know.
const ADDRESS: [&str; 2] = ["SHIMWRIGHT_HTTP_ADDRESS", "WASMTIME_HTTP_PROXY_SOCKET_ADDR"];
/// How many connections the kernel keeps until they are accepted.
const BACKLOG: [&str; 2] = ["SHIMWRIGHT_HTTP_BACKLOG", "WASMTIME_HTTP_BACKLOG"];
/// How many requests are handled at the same time.
const CONCURRENCY: [&str; 1] = ["SHIMWRIGHT_HTTP_CONCURRENCY"];
/// How many requests an instance is given.
const REUSE: [&str; 1] = ["SHIMWRIGHT_HTTP_REUSE"];
/// How many seconds requests have to be finished after the first signal.
const GRACE: [&str; 1] = ["SHIMWRIGHT_HTTP_GRACE"];

/// How HTTP is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) backlog: u32,
    pub(crate) concurrency: u16,
    /// How many requests an instance is given, if that is said.
    pub(crate) reuse: Option<NonZeroUsize>,
    pub(crate) grace: Duration,
}

impl Settings {
    /// Takes the settings from the environment of a container.
    ///
    /// # Errors
    ///
    /// The name of a variable whose value cannot be used.
    pub(crate) fn new(env: &[(String, String)]) -> Result<Self, BoxError> {
        let settings = Self {
            address: value(
                env,
                &ADDRESS,
                "an address such as 0.0.0.0:8080 or [::]:8080",
            )?
            .unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 8080).into()),
            backlog: value(env, &BACKLOG, "a number of connections")?.unwrap_or(1024),
            concurrency: value(env, &CONCURRENCY, "a number of requests")?.unwrap_or(100),
            reuse: value(env, &REUSE, "a number of requests")?,
            grace: Duration::from_secs(value(env, &GRACE, "a number of seconds")?.unwrap_or(30)),
        };
        if settings.concurrency == 0 {
            return Err(format!("{} must be at least 1", CONCURRENCY[0]).into());
        }
        Ok(settings)
    }
}

/// The value of the first of these variables that is set.
fn value<T: FromStr>(
    env: &[(String, String)],
    names: &[&str],
    expected: &str,
) -> Result<Option<T>, BoxError> {
    let found = names
        .iter()
        .find_map(|name| env.iter().find(|(found, _)| found == name));
    let Some((name, text)) = found else {
        return Ok(None);
    };
    match text.parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(format!("{name} is {text:?} and not {expected}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(env: &[(&str, &str)]) -> Result<Settings, BoxError> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        Settings::new(&env.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_need_be_set() {
        let found = settings(&[("PATH", "/bin")]).unwrap();
        assert_eq!(found.address.to_string(), "0.0.0.0:8080");
        assert_eq!(found.backlog, 1024);
        assert_eq!(found.concurrency, 100);
        assert_eq!(found.reuse, None);
        assert_eq!(found.grace, Duration::from_secs(30));
    }

    #[test]
    fn names_of_other_shims_are_known_and_ours_come_first() {
        let found = settings(&[
            ("WASMTIME_HTTP_PROXY_SOCKET_ADDR", "127.0.0.1:1"),
            ("WASMTIME_HTTP_BACKLOG", "7"),
        ])
        .unwrap();
        assert_eq!(found.address.to_string(), "127.0.0.1:1");
        assert_eq!(found.backlog, 7);
        let found = settings(&[
            ("WASMTIME_HTTP_PROXY_SOCKET_ADDR", "127.0.0.1:1"),
            ("SHIMWRIGHT_HTTP_ADDRESS", "[::1]:2"),
        ])
        .unwrap();
        assert_eq!(found.address.to_string(), "[::1]:2");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, text) in [
            ("SHIMWRIGHT_HTTP_ADDRESS", "8080"),
            ("WASMTIME_HTTP_BACKLOG", "-1"),
            ("SHIMWRIGHT_HTTP_CONCURRENCY", "0"),
            ("SHIMWRIGHT_HTTP_REUSE", "0"),
            ("SHIMWRIGHT_HTTP_GRACE", "1 minute"),
        ] {
            let error = settings(&[(name, text)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
