//! Reads specs that the types of `oci-spec` are too strict for.
//!
//! A value that they do not know fails the whole document. What runc takes is taken here too, before the
//! types see it: a capability that this build does not know is left out with a warning, as the OCI
//! runtime spec asks for ("process.capabilities": "runtimes SHOULD log a warning"), an absent user is
//! root, and flags of a scheduler have the names of the spec.

use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Error, Map, Value, json};

/// A flag of a scheduler by the name of the OCI runtime spec, and by that of `oci-spec`.
const RESET: (&str, &str) = ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK");

/// Reads a spec.
pub(crate) fn parse(bytes: &[u8]) -> Result<Spec, Error> {
    read(bytes, |spec| {
        if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
            mend(process);
        }
    })
}

/// Reads the process of an exec.
pub(crate) fn parse_process(bytes: &[u8]) -> Result<Process, Error> {
    read(bytes, mend)
}

/// Reads a document, and mends it only if that is needed: what cannot be mended either is told with its
/// place in the text.
fn read<T: DeserializeOwned>(
    bytes: &[u8],
    mend: impl FnOnce(&mut Map<String, Value>),
) -> Result<T, Error> {
    let strict = match serde_json::from_slice(bytes) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let Ok(Value::Object(mut document)) = serde_json::from_slice(bytes) else {
        return Err(strict);
    };
    mend(&mut document);
    serde_json::from_value(Value::Object(document)).map_err(|_| strict)
}

fn mend(process: &mut Map<String, Value>) {
    process
        .entry("user")
        .or_insert_with(|| json!({ "uid": 0, "gid": 0 }));
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(Map::values_mut) {
        if let Some(set) = set.as_array_mut() {
            set.retain(|capability| capability.as_str().is_none_or(is_known));
        }
    }
    let flags = process
        .get_mut("scheduler")
        .and_then(|scheduler| scheduler.get_mut("flags"))
        .and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if *flag == RESET.0 {
            *flag = json!(RESET.1);
        }
    }
}

fn is_known(capability: &str) -> bool {
    let known = serde_json::from_value::<Capability>(json!(capability)).is_ok();
    if !known {
        tracing::warn!(capability, "ignoring an unknown capability");
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: &str = r#"{"cwd":"/","user":{"uid":1,"gid":1},"capabilities":
        {"bounding":["CAP_KILL","CAP_FUTURE"],"ambient":["CAP_FUTURE"]}}"#;

    #[test]
    fn an_unknown_capability_is_left_out() {
        let process = parse_process(PROCESS.as_bytes()).unwrap();
        let sets = process.capabilities().clone().unwrap();
        assert_eq!(sets.bounding().clone().unwrap().len(), 1);
        assert!(sets.ambient().clone().unwrap().is_empty());
        let spec = format!(r#"{{"ociVersion":"1.0.2","process":{PROCESS}}}"#);
        assert_eq!(parse(spec.as_bytes()).unwrap().process(), &Some(process));
    }

    #[test]
    fn an_absent_user_is_root() {
        let process = parse_process(br#"{"cwd":"/"}"#).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 0));
    }

    #[test]
    fn a_flag_has_the_name_of_the_spec() {
        let scheduler = r#"{"policy":"SCHED_RR","flags":["SCHED_FLAG_RESET_ON_FORK"]}"#;
        let process = format!(r#"{{"cwd":"/","scheduler":{scheduler}}}"#);
        parse_process(process.as_bytes()).unwrap();
    }

    #[test]
    fn another_mistake_is_told_with_its_place() {
        let error = parse_process(b"{\"cwd\":\"/\",\n\"terminal\":1}").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(parse(b"[]").is_err() && parse(b"{").is_err());
    }
}
