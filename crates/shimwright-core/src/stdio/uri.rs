//! The names of streams in a request: paths and URIs. URIs are parsed like Go's `net/url`, with
//! which containerd's clients build them.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::logger::Program;
use super::null;
use crate::error::Error;

/// Keys of a query with this prefix are variables of the logger (containerd, `NewBinaryCmd`).
const VARIABLE: &[u8] = b"env.";

/// Where a stream leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere.
    Null,
    /// A FIFO, or a file that exists and is copied from or to.
    Path(PathBuf),
    /// A file to append to, which is made if it is missing.
    File(PathBuf),
    /// A program that reads the outputs.
    Logger(Program),
}

impl Place {
    /// Parses the name of a stream; an empty one leads nowhere.
    ///
    /// # Errors
    ///
    /// `Invalid` for what is not a URI or has an unknown scheme, `NotSupported` for containerd's
    /// own streams.
    pub(super) fn parse(name: &str) -> Result<Self, Error> {
        if name.is_empty() || name == null::PATH {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = split_scheme(name) else {
            // Not even a percent sign has a meaning here.
            return Ok(Self::Path(absolute(name, name.as_bytes().to_vec())?));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "fifo" => Ok(Self::Path(Parts::parse(name, rest)?.path()?)),
            "file" => Ok(Self::File(Parts::parse(name, rest)?.path()?)),
            "binary" => Ok(Self::Logger(Parts::parse(name, rest)?.program(false)?)),
            "binary-v2" => Ok(Self::Logger(Parts::parse(name, rest)?.program(true)?)),
            // The address of a shim, for the streaming service of the sandbox API (containerd,
            // `newStreams` in `internal/cri/io`).
            service if service == "streaming" || service.contains('+') => {
                Err(Error::NotSupported {
                    operation: format!(
                        "the stream {name} (io_type of the runtime handler in containerd's \
                         configuration is \"streaming\" instead of \"fifo\")"
                    ),
                })
            }
            unknown => Err(Error::invalid(format!(
                "unknown scheme {unknown} of the stream {name}"
            ))),
        }
    }
}

/// The scheme of a URI, and what follows its colon (RFC 3986, section 3.1).
fn split_scheme(name: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = name.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then_some((scheme, rest))
}

/// A URI behind its scheme.
struct Parts<'a> {
    name: &'a str,
    path: Vec<u8>,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn parse(name: &'a str, rest: &'a str) -> Result<Self, Error> {
        if name.contains(|c: char| c.is_ascii_control()) {
            return Err(Error::invalid(format!(
                "control character in the stream {name:?}"
            )));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match rest.strip_prefix("//") {
            Some(rest) if rest.starts_with('/') => rest,
            Some(rest) => {
                let host = rest.split('/').next().unwrap_or_default();
                return Err(Error::invalid(format!(
                    "the stream {name} is on a host, {host:?}: its path has to begin with a slash"
                )));
            }
            None => rest,
        };
        let path = decode(name, path, false)?;
        Ok(Self { name, path, query })
    }

    fn path(self) -> Result<PathBuf, Error> {
        absolute(self.name, self.path)
    }

    /// The program of a `binary` URI. A key and its value are two arguments, in the order of the
    /// query; of a key's values only the first counts, as in containerd's own shim.
    fn program(self, says_ready: bool) -> Result<Program, Error> {
        let mut seen = Vec::new();
        let (mut args, mut env) = (Vec::new(), Vec::new());
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            // Go leaves out pairs with a semicolon, which used to separate pairs too.
            if pair.contains(';') {
                return Err(Error::invalid(format!(
                    "semicolon in the query of the stream {}",
                    self.name
                )));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = decode(self.name, key, true)?;
            let value = decode(self.name, value, true)?;
            if seen.contains(&key) {
                continue;
            }
            match key.strip_prefix(VARIABLE) {
                Some(variable) => env.push(c_string(self.name, [variable, b"=", &value].concat())?),
                None => {
                    args.push(c_string(self.name, key.clone())?);
                    args.push(c_string(self.name, value)?);
                }
            }
            seen.push(key);
        }
        let path = absolute(self.name, self.path)?;
        let path = c_string(self.name, path.into_os_string().into_vec())?;
        Ok(Program {
            path,
            args,
            env,
            says_ready,
        })
    }
}

fn absolute(name: &str, path: Vec<u8>) -> Result<PathBuf, Error> {
    if path.starts_with(b"/") && !path.contains(&0) {
        return Ok(PathBuf::from(OsString::from_vec(path)));
    }
    Err(Error::invalid(format!(
        "the path of a stream is not absolute: {name}"
    )))
}

fn c_string(name: &str, bytes: Vec<u8>) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| Error::invalid(format!("NUL in the stream {name}")))
}

/// Replaces percent-encoded bytes, and in a query plus signs. Go ignores a pair of the query that
/// is malformed; a logger without an argument it was meant to have is worse than none.
fn decode(name: &str, text: &str, is_query: bool) -> Result<Vec<u8>, Error> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let digit = |index: usize| (*after.get(index)? as char).to_digit(16);
                let byte = digit(0).zip(digit(1)).map(|(high, low)| high * 16 + low);
                let Some(byte) = byte.and_then(|byte| u8::try_from(byte).ok()) else {
                    return Err(Error::invalid(format!(
                        "malformed percent-encoding in the stream {name}"
                    )));
                };
                decoded.push(byte);
                rest = &after[2..];
            }
            b'+' if is_query => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    Ok(decoded)
}

/// Takes the name of a stream apart, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(name: &str) {
    match Place::parse(name) {
        Ok(Place::Path(path) | Place::File(path)) => assert!(path.is_absolute()),
        Ok(Place::Logger(program)) => assert!(program.path.to_bytes().starts_with(b"/")),
        Ok(Place::Null) => assert!(name.is_empty() || name == null::PATH),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Place {
        Place::parse(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn refusal(name: &str) -> String {
        Place::parse(name).unwrap_err().to_string()
    }

    fn program(name: &str) -> (String, Vec<String>, Vec<String>, bool) {
        let Place::Logger(program) = parse(name) else {
            panic!("{name} is no logger");
        };
        let text = |text: &CString| text.to_string_lossy().into_owned();
        (
            text(&program.path),
            program.args.iter().map(text).collect(),
            program.env.iter().map(text).collect(),
            program.says_ready,
        )
    }

    #[test]
    fn names_of_files_and_fifos() {
        assert_eq!(parse(""), Place::Null);
        assert_eq!(parse("/dev/null"), Place::Null);
        let path = |path: &str| Place::Path(path.into());
        assert_eq!(parse("/run/a%20b:c?d#e"), path("/run/a%20b:c?d#e"));
        assert_eq!(parse("fifo:///run/a%20b"), path("/run/a b"));
        assert_eq!(parse("FIFO:/run/a"), path("/run/a"));
        let file = |path: &str| Place::File(path.into());
        assert_eq!(
            parse("file:///var/log/%C3%A4+.log?x=1#y"),
            file("/var/log/ä+.log")
        );
    }

    #[test]
    fn a_logger_gets_its_arguments_in_the_order_of_the_query() {
        let (path, args, env, says_ready) =
            program("binary:///usr/bin/my%20logger?z=last+word&a=&flag&z=again&env.B=1%2b2");
        assert_eq!(path, "/usr/bin/my logger");
        assert_eq!(args, ["z", "last word", "a", "", "flag", ""]);
        assert_eq!(env, ["B=1+2"]);
        assert!(!says_ready);
        // What nerdctl makes of its own executable.
        let (path, args, _, _) = program(
            "binary:///usr/local/bin/nerdctl?_NERDCTL_INTERNAL_LOGGING=%2Fvar%2Flib%2Fnerdctl%2F1",
        );
        assert_eq!(path, "/usr/local/bin/nerdctl");
        assert_eq!(args, ["_NERDCTL_INTERNAL_LOGGING", "/var/lib/nerdctl/1"]);
        assert!(program("binary-v2:///l").3);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        assert_eq!(refusal("out"), "the path of a stream is not absolute: out");
        assert_eq!(
            refusal("npipe:////./pipe/x"),
            "unknown scheme npipe of the stream npipe:////./pipe/x"
        );
        for name in [
            "streaming://x",
            "ttrpc+unix:///run/containerd/s/1?streaming_id=a-stdout",
            "grpc+vsock://3:1024?streaming_id=a-stdout",
        ] {
            let error = Place::parse(name).unwrap_err();
            assert!(matches!(error, Error::NotSupported { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("io_type"), "{text}");
        }
        for (name, reason) in [
            ("binary://logger", "is on a host, \"logger\""),
            ("file://var/log", "is on a host, \"var\""),
            ("binary:logger", "not absolute"),
            ("binary://", "is on a host, \"\""),
            ("file:///%zz", "malformed percent-encoding"),
            ("file:///%4", "malformed percent-encoding"),
            ("binary:///l?a=%", "malformed percent-encoding"),
            ("binary:///l?a=1;b=2", "semicolon"),
            ("binary:///l?a=%00", "NUL"),
            ("file:///a%00b", "not absolute"),
            ("file:///a\nb", "control character"),
        ] {
            assert!(refusal(name).contains(reason), "{name}: {}", refusal(name));
        }
    }
}
