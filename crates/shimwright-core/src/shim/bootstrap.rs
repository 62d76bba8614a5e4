//! What containerd tells a shim when it starts it, and the form in which it expects the answer.
//!
//! | containerd | tells by | accepts |
//! | --- | --- | --- |
//! | 1.6 | flags, environment, runtime options on standard input | a bare address |
//! | 1.7, 2.0 to 2.2 | the same | a bare address, or JSON |
//! | 2.3 and later | `BootstrapParams` on standard input | `BootstrapResult`, JSON, a bare address |
//!
//! A bare address therefore answers all that is not a `BootstrapParams`. (`containerd-shim`'s own
//! bootstrap answers in JSON and announces version 3, which 1.6 and 1.7 reject.)

use std::io::{IsTerminal, Read};

use containerd_shim::bootstrap::BootstrapResult;
use containerd_shim::{Flags, StartOpts, bootstrap::BootstrapParams};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use crate::config::options::RuntimeOptions;
use crate::error::{Context, Error};

/// The most that is read from standard input, in bytes; containerd's own bound.
const MAX_INPUT: u64 = 10 << 20;

/// What `start` was told.
#[derive(Debug)]
pub(super) struct Request {
    /// What the socket's address is made from.
    pub(super) opts: StartOpts,
    pub(super) options: RuntimeOptions,
    modern: bool,
}

impl Request {
    /// Reads standard input and the environment.
    pub(super) fn read(flags: &Flags) -> Result<Self, Error> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self::parse(
            flags,
            &stdin()?,
            &variable("TTRPC_ADDRESS"),
            &variable("GRPC_ADDRESS"),
        )
    }

    fn parse(flags: &Flags, input: &[u8], ttrpc: &str, grpc: &str) -> Result<Self, Error> {
        let modern = match BootstrapParams::parse_from_bytes(input) {
            // Runtime options parse as parameters too: their type lands in the id.
            Ok(params) if params.instance_id == flags.id && params.namespace == flags.namespace => {
                Some(params)
            }
            _ => None,
        };
        let is_modern = modern.is_some();
        let (opts, options) = match modern {
            Some(params) => {
                let opts = StartOpts::from(params);
                let is_options = |any: &&Any| any.type_url.ends_with(".Options");
                let options = RuntimeOptions::decode(opts.extensions.iter().find(is_options))?;
                (opts, options)
            }
            None => {
                let any = Any::parse_from_bytes(input)
                    .map_err(|error| Error::invalid(format!("standard input: {error}")))?;
                (
                    legacy(flags, ttrpc, grpc),
                    RuntimeOptions::decode(Some(&any))?,
                )
            }
        };
        if opts.ttrpc_address.is_empty() {
            return Err(Error::invalid("containerd has not told its ttrpc address"));
        }
        Ok(Self {
            opts,
            options,
            modern: is_modern,
        })
    }

    /// The answer, in the form this containerd expects.
    pub(super) fn answer(&self, address: &str) -> Result<Vec<u8>, Error> {
        if !self.modern {
            return Ok(address.as_bytes().to_vec());
        }
        let result = BootstrapResult {
            // Version 3 would promise that no further `start` and `delete` are needed in a pod.
            version: 2,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..Default::default()
        };
        result.write_to_bytes().context("encode the answer")
    }
}

fn legacy(flags: &Flags, ttrpc: &str, grpc: &str) -> StartOpts {
    let address = if flags.address.is_empty() {
        grpc
    } else {
        &flags.address
    };
    StartOpts {
        id: flags.id.clone(),
        publish_binary: flags.publish_binary.clone(),
        address: address.to_owned(),
        ttrpc_address: ttrpc.to_owned(),
        namespace: flags.namespace.clone(),
        debug: flags.debug,
        ..Default::default()
    }
}

/// All of standard input, unless someone sits there.
pub(super) fn stdin() -> Result<Vec<u8>, Error> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        stdin
            .lock()
            .take(MAX_INPUT)
            .read_to_end(&mut input)
            .context("read standard input")?;
    }
    Ok(input)
}

/// Reads the input of `start`, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(input: &[u8]) {
    let flags = Flags {
        id: "c".into(),
        namespace: "n".into(),
        ..Flags::default()
    };
    if let Ok(request) = Request::parse(&flags, input, "/ttrpc", "/grpc") {
        let answer = request.answer("unix:///s");
        assert!(answer.is_ok_and(|answer| !answer.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "c".into(),
            namespace: "n".into(),
            address: "/grpc".into(),
            ..Flags::default()
        }
    }

    fn parse(input: &[u8]) -> Request {
        Request::parse(&flags(), input, "/ttrpc", "").unwrap()
    }

    #[test]
    fn without_parameters_the_answer_is_a_bare_address() {
        let any = Any {
            type_url: "containerd.runc.v1.Options".into(),
            ..Any::default()
        };
        for input in [Vec::new(), any.write_to_bytes().unwrap()] {
            let request = parse(&input);
            assert_eq!(request.opts.address, "/grpc");
            assert_eq!(request.answer("unix:///s").unwrap(), b"unix:///s");
        }
    }

    #[test]
    fn parameters_are_answered_in_kind() {
        let params = BootstrapParams {
            instance_id: "c".into(),
            namespace: "n".into(),
            containerd_ttrpc_address: "/other".into(),
            socket_dir: Some("/run/s".into()),
            ..Default::default()
        };
        let request = parse(&params.write_to_bytes().unwrap());
        assert_eq!(request.opts.ttrpc_address, "/other");
        assert_eq!(request.opts.socket_dir.as_deref(), Some("/run/s"));
        let answer = BootstrapResult::parse_from_bytes(&request.answer("unix:///s").unwrap());
        let answer = answer.unwrap();
        assert_eq!((answer.version, answer.address.as_str()), (2, "unix:///s"));
        assert_eq!(answer.protocol, "ttrpc");
    }

    #[test]
    fn a_missing_address_is_said_at_once() {
        let error = Request::parse(&flags(), &[], "", "")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "containerd has not told its ttrpc address");
    }
}
