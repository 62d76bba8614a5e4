//! One test: a container whose root is a copy of the test's directory, and `/dev`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::json;
use shimwright_testkit::protos::protobuf::Enum as _;
use shimwright_testkit::protos::types::task::Status;
use shimwright_testkit::{Bundle, Containerd, DEADLINE, Input, Output, Result, Shim, poll, shim};

use crate::Test;
use crate::http;
use crate::spec::{Operation, Read, Request, Run, Signal, Stream, Wait};

/// How a test went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
}

/// What an engine without components says of one.
const NO_COMPONENTS: &str = "runs a core module, not a component";

/// What every container has in its root. It stays there: engines read random numbers from it.
const DEVICES: &str = "dev";

/// How much of an output is shown of a test that fails.
const SHOWN: usize = 4096;

/// Runs a test as the container `id`.
///
/// # Errors
///
/// What is wrong with the test, or with its surroundings.
pub(crate) fn test(containerd: &Containerd, id: &str, test: &Test) -> Result<Outcome> {
    if test.spec.servers {
        let reason = "it asks servers that would have to be started for it";
        return Ok(Outcome::NotRun(reason.to_owned()));
    }
    let Some((Operation::Run(run), operations)) = test.spec.operations.split_first() else {
        return Err("the first operation is no `run`".into());
    };
    let wasm = fs::read(&test.wasm)?;
    let is_component = wasm.starts_with(b"\0asm\x0d\0\x01\0");
    let address = test.spec.served.then(free_address).transpose()?;
    let bundle = containerd.bundle(id)?;
    let _files = Files(vec![
        bundle.directory().to_owned(),
        bundle.image().to_owned(),
    ]);
    let mut bundle = describe(bundle, test, run, &wasm, address)?;
    let (stdin, stdout, stderr) = (bundle.stdin()?, bundle.stdout()?, bundle.stderr()?);
    let shim = containerd.start(&bundle)?;
    if let Err(error) = shim.create(&bundle) {
        shim.shutdown();
        let text = match shim::refusal::<u32>(Err(error)) {
            Ok((_, text)) => text,
            Err(error) => error.to_string(),
        };
        return Ok(if is_component && text.contains(NO_COMPONENTS) {
            Outcome::NotRun(text)
        } else {
            Outcome::Failed(format!("it is not created: {text}"))
        });
    }
    let mut running = Running {
        shim: &shim,
        id,
        stdin,
        stdout,
        stderr,
        read: BTreeMap::new(),
        connections: BTreeMap::new(),
        address,
    };
    // The program has been read by now: what is in the root is the test's own only.
    let root = test.wasm.parent().unwrap_or(Path::new("."));
    let outcome = fill(bundle.image(), root, run)
        .and_then(|()| Ok(shim.start(id).map(drop)?))
        .and_then(|()| operations.iter().try_for_each(|next| running.perform(next)));
    let outcome = match outcome {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            let ended = end(&shim, id);
            let mut reason = error.to_string();
            if ended.is_ok() {
                for (name, output) in [("output", &running.stdout), ("error", &running.stderr)] {
                    let text = output.text()?;
                    if !text.is_empty() {
                        let text = tail(&text);
                        reason.push_str(&format!("\nstandard {name}:\n{text}"));
                    }
                }
            }
            Outcome::Failed(reason)
        }
    };
    shim.delete(id)?;
    shim.shutdown();
    Ok(outcome)
}

/// Ends a container that may have ended.
fn end(shim: &Shim, id: &str) -> Result<()> {
    // It fails if the container has ended by itself.
    let _ = shim.kill(id, 9);
    shim.wait(id)?;
    Ok(())
}

/// The last part of a text.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].trim_end()
}

/// An address of the loopback that nobody listens on. Somebody may before the test does; then the
/// test fails.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The container of a test: no mounts, and no environment but the test's own.
fn describe(
    bundle: Bundle,
    test: &Test,
    run: &Run,
    wasm: &[u8],
    address: Option<SocketAddr>,
) -> Result<Bundle> {
    let program = format!("{}.wasm", test.name);
    let mut args = vec![program.as_str()];
    args.extend(run.args.iter().map(String::as_str));
    let mut env: Vec<_> = run
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    // A container has a `HOME` besides, which the guest is not given.
    let names: Vec<_> = run.env.keys().map(String::as_str).collect();
    let names = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    };
    env.push(format!("SHIMWRIGHT_ENVIRONMENT={names}"));
    env.extend(address.map(|address| format!("SHIMWRIGHT_HTTP_ADDRESS={address}")));
    fs::create_dir(bundle.image().join(DEVICES))?;
    bundle.file(&program, wasm, 0o755)?.spec(|spec| {
        spec["process"]["args"] = json!(args);
        spec["process"]["env"] = json!(env);
        spec["mounts"] = json!([]);
        if test.spec.network
            && let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut()
        {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
    })
}

/// Makes a directory a copy of what the test wants as its root.
fn fill(directory: &Path, beside: &Path, run: &Run) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name() == DEVICES {
            continue;
        }
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    if let Some(root) = &run.root {
        copy(&beside.join(root), directory)?;
    }
    for name in &run.dirs {
        let target = directory.join(name);
        fs::create_dir_all(&target)?;
        copy(&beside.join(name), &target)?;
    }
    Ok(())
}

/// Copies what is in a directory, but for what earlier runs by other runners have left.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).map_err(|error| format!("list {}: {error}", from.display()));
    for entry in entries? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if source
            .extension()
            .is_some_and(|extension| extension == "cleanup")
        {
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(source)?, target)?;
        } else {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}

/// Directories that are gone when dropped, with the FIFOs beside them.
struct Files(Vec<PathBuf>);

impl Drop for Files {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = fs::remove_dir_all(directory);
            for stream in ["stdin", "stdout", "stderr"] {
                let _ = fs::remove_file(directory.with_extension(stream));
            }
        }
    }
}

/// A test that has been started.
struct Running<'a> {
    shim: &'a Shim,
    id: &'a str,
    stdin: Input,
    stdout: Output,
    stderr: Output,
    /// How much of each output has been read.
    read: BTreeMap<Stream, usize>,
    connections: BTreeMap<String, TcpStream>,
    /// Where it serves, if it does.
    address: Option<SocketAddr>,
}

impl Running<'_> {
    fn perform(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Run(_) => Err("it runs already".into()),
            Operation::Wait(wait) => self.wait(wait),
            Operation::Read(read) => self.read(read),
            Operation::Write(write) => Ok(self.stdin.write(write.payload.as_bytes())?),
            Operation::Connect(connect) => {
                let line = self.line()?;
                let connection = TcpStream::connect(&line)
                    .map_err(|error| format!("connect to {line:?}: {error}"))?;
                connection.set_read_timeout(Some(DEADLINE))?;
                self.connections.insert(connect.id.clone(), connection);
                Ok(())
            }
            Operation::Send(message) => {
                let connection = self.connection(&message.id)?;
                Ok(connection.write_all(message.payload.as_bytes())?)
            }
            Operation::Recv(message) => {
                let length = u64::try_from(message.payload.len())?;
                let mut bytes = Vec::new();
                let connection = self.connection(&message.id)?;
                connection.take(length).read_to_end(&mut bytes)?;
                compare(&message.id, &message.payload, &bytes)
            }
            Operation::Request(request) => self.request(request),
            Operation::Kill(kill) => {
                let signal = match kill.signal {
                    Signal::Interrupt => 2,
                    Signal::Kill => 9,
                    Signal::Terminate => 15,
                };
                Ok(self.shim.kill(self.id, signal)?)
            }
        }
    }

    fn connection(&mut self, id: &str) -> Result<&mut TcpStream> {
        let found = self.connections.get_mut(id);
        found.ok_or_else(|| format!("there is no connection called `{id}`").into())
    }

    fn output(&self, stream: Stream) -> &Output {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn read(&mut self, read: &Read) -> Result<()> {
        let from = self.read.get(&read.id).copied().unwrap_or_default();
        let to = from + read.payload.len();
        let bytes = self.output(read.id).find(|bytes, ended| {
            let found = bytes.get(from..to);
            let rest = bytes.get(from..).filter(|_| ended);
            Some(found.or(rest)?.to_owned())
        })?;
        self.read.insert(read.id, to);
        compare(&format!("{:?}", read.id), &read.payload, &bytes)
    }

    /// The next line of its standard output.
    fn line(&mut self) -> Result<String> {
        let from = self.read.get(&Stream::Stdout).copied().unwrap_or_default();
        let line = self.stdout.find(|bytes, ended| {
            let rest = bytes.get(from..)?;
            let end = rest.iter().position(|&byte| byte == b'\n');
            let end = end.or_else(|| ended.then_some(rest.len()))?;
            Some(rest[..end].to_owned())
        })?;
        self.read.insert(Stream::Stdout, from + line.len() + 1);
        Ok(String::from_utf8(line)?.trim().to_owned())
    }

    fn has_ended(&self) -> bool {
        let state = self.shim.state(self.id);
        state.is_ok_and(|state| state.status.value() == Status::STOPPED.value())
    }

    fn request(&self, request: &Request) -> Result<()> {
        let address = self.address.ok_or("it is not served")?;
        // Nothing says when it listens.
        let listens = poll(|| match TcpStream::connect(address) {
            Ok(_) => Some(true),
            Err(_) => self.has_ended().then_some(false),
        });
        if listens != Some(true) {
            return Err(format!("it does not listen on {address}").into());
        }
        let what = format!("{} {}", request.method, request.path);
        let answer = http::send(address, request).map_err(|error| format!("{what}: {error}"))?;
        let expected = &request.response;
        if answer.status != expected.status {
            let (found, expected) = (answer.status, expected.status);
            return Err(format!("{what}: status {found} instead of {expected}").into());
        }
        for (name, value) in &expected.headers {
            let found = answer.headers.get(&name.to_ascii_lowercase());
            if found != Some(value) {
                return Err(format!("{what}: {name} is {found:?} instead of {value:?}").into());
            }
        }
        compare(
            &format!("{what}: the body"),
            &expected.body,
            answer.body.as_bytes(),
        )
    }

    fn wait(&mut self, wait: &Wait) -> Result<()> {
        self.stdin.close();
        // It fails if the guest has ended by itself.
        let _ = self.shim.close_stdin(self.id);
        let ended = self.shim.wait(self.id);
        let status = ended
            .map_err(|error| format!("it has not ended within {DEADLINE:?}: {error}"))?
            .exit_status;
        if status != wait.exit_code {
            return Err(format!("exit code {status} instead of {}", wait.exit_code).into());
        }
        for (name, expected, output) in [
            ("standard output", &wait.stdout, &self.stdout),
            ("standard error", &wait.stderr, &self.stderr),
        ] {
            if let Some(expected) = expected {
                compare(name, expected, &output.bytes()?)?;
            }
        }
        Ok(())
    }
}

/// Fails unless bytes are what is expected of them.
fn compare(what: &str, expected: &str, found: &[u8]) -> Result<()> {
    if found == expected.as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(found);
    Err(format!("{what} is {found:?} instead of {expected:?}").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_text_is_shown() {
        assert_eq!(tail("short\n"), "short");
        let long = format!("{}ö{}", "a".repeat(10), "b".repeat(SHOWN - 1));
        assert_eq!(tail(&long).len(), SHOWN - 1);
    }

    #[test]
    fn a_difference_is_told() {
        assert!(compare("x", "a", b"a").is_ok());
        let error = compare("x", "a", b"b").unwrap_err().to_string();
        assert_eq!(error, "x is \"b\" instead of \"a\"");
    }
}
