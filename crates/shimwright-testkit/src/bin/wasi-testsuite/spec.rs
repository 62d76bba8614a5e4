//! The JSON beside a test: what the test is given and what must come of it.
//!
//! There are two forms, of which one file has one: what is given and expected as keys of one
//! object, or a list of operations. A key that is in neither is an error: a test that asks for
//! something we do not know would pass or fail for no reason.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use shimwright_testkit::Result;

/// What is done with a test, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) operations: Vec<Operation>,
    /// Whether the test is about a network, which it then shares with us.
    pub(crate) network: bool,
    /// Whether it is served instead of run to its end.
    pub(crate) served: bool,
    /// Whether it sends requests to servers that we would have to be.
    pub(crate) servers: bool,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Operation {
    /// Starts the test.
    Run(Run),
    /// Waits for its end.
    Wait(Wait),
    /// Reads as many bytes as the payload has, which must be these.
    Read(Read),
    Write(Write),
    /// Connects to the address that the test prints.
    Connect(Connect),
    Send(Message),
    Recv(Message),
    /// Sends an HTTP request to a test that is served.
    Request(Request),
    Kill(Kill),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// A directory beside the test that is the guest's `/`.
    pub(crate) root: Option<String>,
    /// Directories beside the test that the guest finds below its `/`; of an older convention.
    #[serde(skip)]
    pub(crate) dirs: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wait {
    pub(crate) exit_code: u32,
    /// All of its standard output.
    #[serde(skip)]
    pub(crate) stdout: Option<String>,
    #[serde(skip)]
    pub(crate) stderr: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Read {
    pub(crate) id: Stream,
    pub(crate) payload: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub(crate) id: Input,
    #[serde(default)]
    pub(crate) payload: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Input {
    Stdin,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Connect {
    pub(crate) id: String,
    pub(crate) protocol_type: Protocol,
}

/// The others that the specification names are used by no test, also not of its own runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) payload: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    pub(crate) response: Response,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Kill {
    pub(crate) signal: Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Signal {
    #[serde(rename = "SIGINT")]
    Interrupt,
    #[serde(rename = "SIGTERM")]
    Terminate,
    #[serde(rename = "SIGKILL")]
    Kill,
}

/// The form with one object.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Plain {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    root: Option<String>,
    dirs: Vec<String>,
    exit_code: u32,
    stdout: Option<String>,
    stderr: Option<String>,
}

/// The form with operations.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    operations: Option<Vec<Operation>>,
    #[serde(default)]
    proposals: Vec<Proposal>,
    #[serde(default)]
    world: World,
    /// Only whether there are any is of interest.
    #[serde(default)]
    servers: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Proposal {
    Http,
    Sockets,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum World {
    #[default]
    #[serde(rename = "wasi:cli/command")]
    Command,
    #[serde(rename = "wasi:http/service")]
    Service,
}

impl Default for Read {
    fn default() -> Self {
        Self {
            id: Stream::Stdout,
            payload: String::new(),
        }
    }
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            id: "server".to_owned(),
            protocol_type: Protocol::Tcp,
        }
    }
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
            response: Response::default(),
        }
    }
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: 200,
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }
}

impl Default for Kill {
    fn default() -> Self {
        Self {
            signal: Signal::Terminate,
        }
    }
}

impl Spec {
    /// Reads a file. A test without one is run without anything and must succeed.
    ///
    /// # Errors
    ///
    /// Names the file, and the key that is unknown or has a value that it cannot have.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => "{}".to_owned(),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn parse(text: &str) -> Result<Self> {
        let object: serde_json::Map<String, Value> = serde_json::from_str(text)?;
        let is_listed = ["operations", "proposals", "world", "servers"]
            .iter()
            .any(|key| object.contains_key(*key));
        let spec = if is_listed {
            Self::listed(Listed::deserialize(Value::Object(object))?)
        } else {
            Self::plain(Plain::deserialize(Value::Object(object))?)
        };
        spec.validate()?;
        Ok(spec)
    }

    fn plain(plain: Plain) -> Self {
        let run = Run {
            args: plain.args,
            env: plain.env,
            root: plain.root,
            dirs: plain.dirs,
        };
        let wait = Wait {
            exit_code: plain.exit_code,
            stdout: plain.stdout,
            stderr: plain.stderr,
        };
        Self {
            operations: vec![Operation::Run(run), Operation::Wait(wait)],
            network: false,
            served: false,
            servers: false,
        }
    }

    fn listed(listed: Listed) -> Self {
        let default = || {
            vec![
                Operation::Run(Run::default()),
                Operation::Wait(Wait::default()),
            ]
        };
        let served = listed.world == World::Service;
        let about_a_network = |proposal: &Proposal| match proposal {
            Proposal::Http | Proposal::Sockets => true,
        };
        Self {
            operations: listed.operations.unwrap_or_else(default),
            network: served || listed.proposals.iter().any(about_a_network),
            served,
            servers: !listed.servers.is_empty(),
        }
    }

    /// One `run` comes first, one `wait` last, and connections are made once before they are used.
    fn validate(&self) -> Result<()> {
        let mut connections = Vec::new();
        let last = self.operations.len().saturating_sub(1);
        for (index, operation) in self.operations.iter().enumerate() {
            let (is_run, is_wait) = (
                matches!(operation, Operation::Run(_)),
                matches!(operation, Operation::Wait(_)),
            );
            if is_run != (index == 0) || is_wait != (index == last) || last == 0 {
                return Err(
                    "`operations` do not begin with their only `run`, or do not end with \
                            their only `wait`"
                        .into(),
                );
            }
            match operation {
                Operation::Connect(Connect { id, .. }) => {
                    if connections.contains(&id) {
                        return Err(format!("there are two connections called `{id}`").into());
                    }
                    connections.push(id);
                }
                Operation::Send(Message { id, .. }) | Operation::Recv(Message { id, .. })
                    if !connections.contains(&id) =>
                {
                    return Err(format!("there is no connection called `{id}`").into());
                }
                Operation::Request(_) if !self.served => {
                    return Err("a `request` needs the world `wasi:http/service`".into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Spec::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn nothing_is_a_run_that_must_succeed() {
        let spec = Spec::parse("{}").unwrap();
        let expected = [
            Operation::Run(Run::default()),
            Operation::Wait(Wait::default()),
        ];
        assert_eq!(spec.operations, expected);
        assert_eq!(
            Spec::parse(r#"{"proposals": []}"#).unwrap().operations,
            expected
        );
    }

    #[test]
    fn both_forms_are_read() {
        let plain = Spec::parse(
            r#"{"args": ["a"], "env": {"B": "c"}, "root": "d", "exit_code": 3, "stdout": "e"}"#,
        )
        .unwrap();
        let [Operation::Run(run), Operation::Wait(wait)] = &plain.operations[..] else {
            panic!("{plain:?}");
        };
        assert_eq!((run.args.len(), run.root.as_deref()), (1, Some("d")));
        assert_eq!(run.env["B"], "c");
        assert_eq!((wait.exit_code, wait.stdout.as_deref()), (3, Some("e")));
        assert_eq!(wait.stderr, None);

        let listed = Spec::parse(
            r#"{"proposals": ["sockets"], "operations": [
                {"type": "run", "args": ["a"]},
                {"type": "connect", "id": "x", "protocol_type": "tcp"},
                {"type": "recv", "id": "x", "payload": "hi"},
                {"type": "wait", "exit_code": 1}]}"#,
        )
        .unwrap();
        assert!(listed.network && !listed.served);
        assert_eq!(listed.operations.len(), 4);
    }

    #[test]
    fn unknown_keys_are_errors_that_name_them() {
        assert!(error(r#"{"exitcode": 1}"#).contains("`exitcode`"));
        let operation = r#"{"operations": [{"type": "run", "argv": []}, {"type": "wait"}]}"#;
        assert!(error(operation).contains("`argv`"), "{}", error(operation));
        let kind = r#"{"operations": [{"type": "run"}, {"type": "dance"}, {"type": "wait"}]}"#;
        assert!(error(kind).contains("`dance`"));
        assert!(error(r#"{"operations": [], "stdout": ""}"#).contains("`stdout`"));
        assert!(error(r#"{"proposals": ["threads"]}"#).contains("`threads`"));
    }

    #[test]
    fn operations_that_make_no_sense_are_errors() {
        assert!(error(r#"{"operations": [{"type": "run"}]}"#).contains("`wait`"));
        let unknown = r#"{"operations": [{"type": "run"}, {"type": "send", "id": "x"},
                          {"type": "wait"}]}"#;
        assert!(error(unknown).contains("`x`"));
        let request = r#"{"operations": [{"type": "run"}, {"type": "request"}, {"type": "wait"}]}"#;
        assert!(error(request).contains("`wasi:http/service`"));
    }
}
