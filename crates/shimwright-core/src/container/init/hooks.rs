//! Hooks of a container (OCI runtime spec, "POSIX-platform Hooks").
//!
//! Not libcontainer's: that tells hooks another bundle, has none of what a failed hook has said, and
//! waits for the end of a hook that it has killed in a thread.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{ContainerState, Hook, Spec, State as OciState, StateBuilder};
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error};
use crate::sys;

/// How much of what a failed hook has written is in the error, in bytes.
const MOST_OUTPUT: u64 = 4096;

/// When hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::container) enum Stage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// What hooks are told about a container (OCI runtime spec, "State").
#[derive(Clone, Debug)]
pub(in crate::container) struct State(OciState);

impl State {
    /// That of the container of a bundle.
    pub(in crate::container) fn new(id: &str, bundle: &Path, spec: &Spec) -> Result<Self, Error> {
        let state = StateBuilder::default()
            .version(oci_spec::runtime::VERSION)
            .id(id)
            .bundle(bundle)
            .annotations(spec.annotations().clone().unwrap_or_default());
        state
            .build()
            .map(Self)
            .context("describe the container to hooks")
    }

    pub(in crate::container) fn creating(&self, pid: Pid) -> OciState {
        self.with(ContainerState::Creating, Some(pid))
    }

    pub(in crate::container) fn created(&self, pid: Pid) -> OciState {
        self.with(ContainerState::Created, Some(pid))
    }

    pub(in crate::container) fn running(&self, pid: Option<Pid>) -> OciState {
        self.with(ContainerState::Running, pid)
    }

    pub(in crate::container) fn stopped(&self) -> OciState {
        self.with(ContainerState::Stopped, None)
    }

    fn with(&self, status: ContainerState, pid: Option<Pid>) -> OciState {
        let mut state = self.0.clone();
        state.set_status(status);
        state.set_pid(pid.map(|pid| pid.as_raw_nonzero().get()));
        state
    }
}

/// Runs the hooks of a stage one after the other.
///
/// # Errors
///
/// The first hook that failed, with what it has written.
pub(in crate::container) fn run(
    stage: Stage,
    hooks: &[Hook],
    state: &OciState,
) -> Result<(), Error> {
    // In the namespaces of the container, it gets nothing of ours.
    let none: Option<&[String]> = (stage == Stage::CreateContainer).then_some(&[]);
    run_all(stage, hooks, state, none)
}

/// Runs the hooks before the program of a container, in the container. One without an environment gets
/// `env`, that of the program.
pub(super) fn run_in_container(
    hooks: &[Hook],
    state: &OciState,
    env: &[String],
) -> Result<(), Error> {
    run_all(Stage::StartContainer, hooks, state, Some(env))
}

/// Runs hooks of which none stops the others: a failed one is logged (OCI runtime spec, "Lifecycle").
pub(in crate::container) fn run_each(stage: Stage, hooks: &[Hook], state: &OciState) {
    for hook in hooks {
        if let Err(error) = run(stage, std::slice::from_ref(hook), state) {
            let error = crate::error::chain(&error);
            tracing::warn!(error, id = state.id(), "hook failed");
        }
    }
}

fn run_all(
    stage: Stage,
    hooks: &[Hook],
    state: &OciState,
    env: Option<&[String]>,
) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).context("encode the state for hooks")?;
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, &state, env).with_context(|| {
            let path = hook.path().display();
            format!("run {} hook {number}, {path}", stage.name())
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &[u8], env: Option<&[String]>) -> Result<(), Error> {
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[_]>::split_first) {
        command.arg0(name).args(args);
    }
    // Without any, it has ours, as with runc.
    if let Some(env) = hook.env().as_deref().or(env) {
        command.env_clear();
        command.envs(env.iter().filter_map(|variable| variable.split_once('=')));
    }
    // Files, so that neither waits for the other: the state is written before there is a reader.
    let input = anonymous(state).context("write the state")?;
    let output = anonymous(&[]).context("make a place for the output")?;
    let place = |file: &std::fs::File| file.try_clone().map(Stdio::from);
    command
        .stdin(Stdio::from(input))
        .stdout(place(&output).context("duplicate the output")?)
        .stderr(place(&output).context("duplicate the output")?);
    let mut child = command.spawn().context("execute it")?;
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    if !ends_within(&child, timeout.map(Duration::from_secs)).context("wait for it")? {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::invalid("it did not end within its timeout"));
    }
    let status = child.wait().context("learn how it ended")?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    let said = said(output);
    let colon = if said.is_empty() { "" } else { ": " };
    Err(Error::invalid(format!("{how}{colon}{said}")))
}

/// A file without a name, to be read from its start.
fn anonymous(content: &[u8]) -> io::Result<std::fs::File> {
    use std::io::Seek;
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create(c"hook", flags)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// The beginning of what a hook has written.
fn said(mut output: std::fs::File) -> String {
    use std::io::Seek;
    let mut text = Vec::new();
    let read = output
        .rewind()
        .and_then(|()| output.take(MOST_OUTPUT).read_to_end(&mut text));
    match read {
        Ok(_) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(_) => String::new(),
    }
}

/// Whether a process ends in time. It is a child that has not been waited for.
fn ends_within(child: &Child, timeout: Option<Duration>) -> io::Result<bool> {
    let Some(timeout) = timeout else {
        return Ok(true);
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let handle: OwnedFd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    // A time too far away to be told is no bound.
    match Instant::now().checked_add(timeout) {
        Some(deadline) => sys::fd::becomes_readable(handle.as_fd(), deadline),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(json: &str) -> Vec<Hook> {
        serde_json::from_str(json).unwrap()
    }

    fn state() -> OciState {
        let spec = serde_json::from_str(r#"{"ociVersion":"1.0.2","annotations":{"a":"b"}}"#);
        let state = State::new("c", Path::new("/b"), &spec.unwrap()).unwrap();
        state.creating(Pid::from_raw(7).unwrap())
    }

    #[test]
    fn a_hook_reads_the_state() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state");
        let command = format!("cat > {}; echo \"$0 $A\" >> {0}", file.display());
        let hooks = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", command, "x"],
            "env": ["A=1", "PATH=/bin:/usr/bin"]}]);
        run(Stage::Prestart, &hooks_of(hooks), &state()).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let (json, rest) = text.split_at(text.rfind('}').unwrap() + 1);
        let read: OciState = serde_json::from_str(json).unwrap();
        assert_eq!(read, state());
        assert_eq!(rest, "x 1\n");
    }

    fn hooks_of(json: serde_json::Value) -> Vec<Hook> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_hook_in_the_container_gets_none_of_our_variables() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env");
        let command = format!("/usr/bin/env > {}", file.display());
        let hooks = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", command]}]);
        let has_path = |stage| {
            run(stage, &hooks_of(hooks.clone()), &state()).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            text.lines().any(|line| line.starts_with("CARGO"))
        };
        assert!(!has_path(Stage::CreateContainer));
        assert_eq!(
            has_path(Stage::CreateRuntime),
            std::env::vars().any(|(name, _)| name.starts_with("CARGO"))
        );
    }

    #[test]
    fn a_failed_hook_says_why_and_stops_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("never");
        let fails = r#"{"path":"/bin/sh","args":["sh","-c","echo no such thing >&2; exit 3"]}"#;
        let next = format!(
            r#"{{"path":"/usr/bin/touch","args":["touch","{}"]}}"#,
            file.display()
        );
        let error = run(
            Stage::CreateRuntime,
            &hooks(&format!("[{fails},{next}]")),
            &state(),
        );
        let error = crate::error::chain(&error.unwrap_err());
        assert!(
            error.contains("createRuntime hook 0")
                && error.ends_with("exit status 3: no such thing"),
            "{error}"
        );
        assert!(!file.exists());
    }

    #[test]
    fn a_hook_that_takes_too_long_is_ended() {
        let before = Instant::now();
        let error = run(
            Stage::Prestart,
            &hooks(r#"[{"path":"/bin/sleep","args":["sleep","60"],"timeout":1}]"#),
            &state(),
        );
        let error = crate::error::chain(&error.unwrap_err());
        assert!(error.contains("timeout"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(30));
    }
}
