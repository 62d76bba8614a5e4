//! A shim as the daemon sees it: the commands of its executable, and its Task service.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_shim_protos::api;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::{self, Client, Code, Request};
use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{
    Bundle, CACHE_DIR_VARIABLE, CONFIG_VARIABLE, Containerd, DEADLINE, Result, Version, poll,
};

/// Has a static program contain this function, which `std` uses if it is there: a child with a working
/// directory of its own is otherwise made by `fork`, which takes milliseconds once this process has a
/// thread for each of hundreds of shims, and the daemon has no such cost.
#[cfg(target_env = "gnu")]
#[used]
static SPAWN_IN_DIRECTORY: unsafe extern "C" fn(
    *mut libc::posix_spawn_file_actions_t,
    *const libc::c_char,
) -> libc::c_int = libc::posix_spawn_file_actions_addchdir_np;

/// What a command of a shim has written, to both streams, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Standard output and standard error, as the daemon reads them: through one pipe.
    pub output: Vec<u8>,
    /// How it ended.
    pub status: ExitStatus,
}

impl Ran {
    /// The output of a command that succeeded.
    ///
    /// # Errors
    ///
    /// With the output, if it failed.
    pub fn success(self) -> Result<Vec<u8>> {
        if self.status.success() {
            return Ok(self.output);
        }
        let output = String::from_utf8_lossy(&self.output);
        Err(format!("the shim ended with {}: {output}", self.status).into())
    }

    /// The output of a command that succeeded, as text.
    ///
    /// # Errors
    ///
    /// If it failed or did not write text.
    pub fn text(self) -> Result<String> {
        Ok(String::from_utf8(self.success()?)?)
    }
}

/// Waits until a command has ended and nobody holds its output any more.
fn finish(child: &mut Child, reader: &mut PipeReader, end: Instant) -> Result<Ran> {
    let (mut output, mut part) = (Vec::new(), [0; 4096]);
    loop {
        await_readable(&*reader, end).map_err(|error| format!("its output stays open: {error}"))?;
        match reader.read(&mut part)? {
            0 => break,
            length => output.extend(&part[..length]),
        }
    }
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    await_readable(&handle, end).map_err(|error| format!("it does not end: {error}"))?;
    Ok(Ran {
        output,
        status: child.wait()?,
    })
}

/// Waits until a descriptor can be read, which that of a process can be once it has ended.
fn await_readable(descriptor: impl AsFd, end: Instant) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match event::poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Containerd {
    /// Runs the shim's executable as the daemon does.
    ///
    /// # Errors
    ///
    /// If it cannot be run, or has not ended and closed its output before the deadline.
    pub fn run(&self, directory: &Path, arguments: &[&str], stdin: &[u8]) -> Result<Ran> {
        let (mut reader, writer) = std::io::pipe()?;
        let mut command = self.command(directory, arguments);
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        // It holds the write ends of the pipe.
        drop(command);
        if let Some(mut pipe) = child.stdin.take() {
            // A command that needs no input may be gone already.
            let _ = pipe.write_all(stdin);
        }
        match finish(&mut child, &mut reader, Instant::now() + DEADLINE) {
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("the shim's command {arguments:?}: {error}").into())
            }
            finished => finished,
        }
    }

    /// The shim's executable as the daemon runs it.
    fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.shim());
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", &self.path)
            .env("TTRPC_ADDRESS", self.events().path())
            .env("GRPC_ADDRESS", self.grpc_address())
            .env("NAMESPACE", self.namespace())
            .env("MAX_SHIM_VERSION", "2")
            .env("GOMAXPROCS", "2")
            .env(CACHE_DIR_VARIABLE, &self.cache)
            .env(CONFIG_VARIABLE, self.config())
            .stdin(Stdio::piped());
        command
    }

    /// Runs `start` for a bundle, with these bytes on standard input.
    ///
    /// # Errors
    ///
    /// If it cannot be run.
    pub fn run_start(&self, bundle: &Bundle, stdin: &[u8]) -> Result<Ran> {
        let grpc = self.grpc_address();
        let arguments = self.start_arguments(bundle, &grpc);
        let ran = self.run(bundle.directory(), &arguments, stdin)?;
        self.remember_that_of(bundle);
        Ok(ran)
    }

    /// Begins to run `start` for a bundle, without input, and waits until a process can be found.
    /// What the command writes goes to this pipe.
    ///
    /// # Errors
    ///
    /// If it cannot be run, or the bundle has no address after the deadline.
    pub fn begin_start(&self, bundle: &Bundle, output: PipeWriter) -> Result<Child> {
        let grpc = self.grpc_address();
        let arguments = self.start_arguments(bundle, &grpc);
        let mut command = self.command(bundle.directory(), &arguments);
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()?;
        let found = poll(|| self.remember_that_of(bundle).then_some(()));
        found.ok_or("the bundle has no address")?;
        Ok(child)
    }

    fn start_arguments<'a>(&'a self, bundle: &'a Bundle, grpc: &'a str) -> [&'a str; 9] {
        [
            "-namespace",
            self.namespace(),
            "-address",
            grpc,
            "-publish-binary",
            "/bin/true",
            "-id",
            bundle.id(),
            "start",
        ]
    }

    /// Remembers the address in a bundle, if there is one.
    fn remember_that_of(&self, bundle: &Bundle) -> bool {
        let address = std::fs::read_to_string(bundle.directory().join("address"));
        if let Ok(address) = &address {
            self.remember(address);
        }
        address.is_ok()
    }

    /// Runs `start` for a bundle, as containerd before 2.3, and connects to the shim.
    ///
    /// # Errors
    ///
    /// If it fails or gives no address.
    pub fn start(&self, bundle: &Bundle) -> Result<Shim> {
        let answer = self.run_start(bundle, &[])?.text()?;
        // Shims of containerd 2 answer with an object, which says more than the address.
        let object: Option<serde_json::Value> = serde_json::from_str(&answer).ok();
        let address = object
            .as_ref()
            .and_then(|object| object["address"].as_str());
        let address = address.unwrap_or(answer.trim());
        self.remember(address);
        Shim::connect(address)
    }

    /// Runs `start` for a bundle, as containerd since 2.3, and returns the answer.
    ///
    /// # Errors
    ///
    /// If it fails or the answer is not one.
    pub fn bootstrap(&self, bundle: &Bundle) -> Result<BootstrapResult> {
        let params = BootstrapParams {
            instance_id: bundle.id().to_owned(),
            namespace: self.namespace().to_owned(),
            containerd_ttrpc_address: self.events().path().to_string_lossy().into_owned(),
            containerd_grpc_address: self.grpc_address(),
            containerd_binary: "/bin/true".to_owned(),
            ..Default::default()
        };
        let ran = self.run_start(bundle, &params.write_to_bytes()?)?;
        Ok(BootstrapResult::parse_from_bytes(&ran.success()?)?)
    }

    /// Runs `delete` for a bundle and returns the answer.
    ///
    /// # Errors
    ///
    /// If it fails or the answer is not one.
    pub fn delete(&self, bundle: &Path, id: &str) -> Result<api::DeleteResponse> {
        let grpc = self.grpc_address();
        let path = bundle.to_string_lossy();
        let arguments = [
            "-namespace",
            self.namespace(),
            "-address",
            &grpc,
            "-publish-binary",
            "/bin/true",
            "-id",
            id,
            "-bundle",
            &path,
            "delete",
        ];
        // The working directory of `delete` is the bundle, unless it is gone.
        let directory = if bundle.is_dir() {
            bundle
        } else {
            self.directory()
        };
        let ran = self.run(directory, &arguments, &[])?;
        Ok(api::DeleteResponse::parse_from_bytes(&ran.success()?)?)
    }

    fn grpc_address(&self) -> String {
        self.directory()
            .join("grpc.sock")
            .to_string_lossy()
            .into_owned()
    }
}

/// A connection to a shim.
#[derive(Clone)]
pub struct Shim {
    address: String,
    version: Version,
    deadline: Duration,
    client: Arc<Client>,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shim")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Declares the calls of the Task service.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $method:literal: $request:ident => $response:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// The shim's.
            pub fn $name(&self, request: &api::$request) -> ttrpc::Result<api::$response> {
                self.call($method, request)
            }
        )*
    };
}

impl Shim {
    /// Connects to a shim.
    ///
    /// # Errors
    ///
    /// If nobody listens.
    pub fn connect(address: &str) -> Result<Self> {
        let client = Arc::new(Client::connect(address)?);
        Ok(Self {
            address: address.to_owned(),
            version: Version::V3,
            deadline: DEADLINE,
            client,
        })
    }

    /// The same connection with another name of the service.
    pub fn version(&self, version: Version) -> Self {
        Self {
            version,
            ..self.clone()
        }
    }

    /// The same connection with another time that each call may take.
    pub fn deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// The address of the shim.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Makes a call of the Task service.
    ///
    /// # Errors
    ///
    /// The shim's, or that there is no answer before the deadline.
    pub fn call<T: Message>(&self, method: &str, request: &impl Message) -> ttrpc::Result<T> {
        let encode = |error: containerd_shim_protos::protobuf::Error| {
            ttrpc::Error::Others(error.to_string())
        };
        let response = self.client.request(Request {
            service: self.version.service().to_owned(),
            method: method.to_owned(),
            payload: request.write_to_bytes().map_err(encode)?,
            timeout_nano: i64::try_from(self.deadline.as_nanos()).unwrap_or(i64::MAX),
            ..Default::default()
        });
        let response = response.map_err(|error| match error {
            // It does not say what was not answered.
            ttrpc::Error::Others(text) => ttrpc::Error::Others(format!("{method}: {text}")),
            other => other,
        })?;
        T::parse_from_bytes(&response.payload).map_err(encode)
    }

    calls! {
        /// `Create`.
        create_task = "Create": CreateTaskRequest => CreateTaskResponse;
        /// `Exec`.
        exec = "Exec": ExecProcessRequest => Empty;
        /// `ResizePty`.
        resize_pty = "ResizePty": ResizePtyRequest => Empty;
        /// `Checkpoint`.
        checkpoint = "Checkpoint": CheckpointTaskRequest => Empty;
        /// `Update`.
        update = "Update": UpdateTaskRequest => Empty;
    }

    /// Creates a bundle's container and returns the pid of its first process.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn create(&self, bundle: &Bundle) -> ttrpc::Result<u32> {
        Ok(self.create_task(&bundle.request())?.pid)
    }

    /// Starts a container and returns the pid of its first process.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn start(&self, id: &str) -> ttrpc::Result<u32> {
        let request = api::StartRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.call::<api::StartResponse>("Start", &request)?.pid)
    }

    /// The state of a container.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn state(&self, id: &str) -> ttrpc::Result<api::StateResponse> {
        self.call(
            "State",
            &api::StateRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// Waits until a container has ended.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn wait(&self, id: &str) -> ttrpc::Result<api::WaitResponse> {
        self.call(
            "Wait",
            &api::WaitRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn kill(&self, id: &str, signal: i32) -> ttrpc::Result<()> {
        let signal = signal.unsigned_abs();
        let request = api::KillRequest {
            id: id.to_owned(),
            signal,
            ..Default::default()
        };
        self.call::<api::Empty>("Kill", &request).map(drop)
    }

    /// Deletes a container.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn delete(&self, id: &str) -> ttrpc::Result<api::DeleteResponse> {
        self.call(
            "Delete",
            &api::DeleteRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// The processes of a container.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn pids(&self, id: &str) -> ttrpc::Result<Vec<u32>> {
        let request = api::PidsRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let response: api::PidsResponse = self.call("Pids", &request)?;
        Ok(response
            .processes
            .iter()
            .map(|process| process.pid)
            .collect())
    }

    /// The shim's and the container's first process.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn connect_task(&self, id: &str) -> ttrpc::Result<api::ConnectResponse> {
        self.call(
            "Connect",
            &api::ConnectRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// What a container uses.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn stats(&self, id: &str) -> ttrpc::Result<api::StatsResponse> {
        self.call(
            "Stats",
            &api::StatsRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// Lets a container see the end of its standard input.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn close_stdin(&self, id: &str) -> ttrpc::Result<()> {
        let request = api::CloseIORequest {
            id: id.to_owned(),
            stdin: true,
            ..Default::default()
        };
        self.call::<api::Empty>("CloseIO", &request).map(drop)
    }

    /// `Pause`.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn pause(&self, id: &str) -> ttrpc::Result<api::Empty> {
        self.call(
            "Pause",
            &api::PauseRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// `Resume`.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn resume(&self, id: &str) -> ttrpc::Result<api::Empty> {
        self.call(
            "Resume",
            &api::ResumeRequest {
                id: id.to_owned(),
                ..Default::default()
            },
        )
    }

    /// Asks the shim to end. It may be gone before it has answered.
    pub fn shutdown(&self) {
        self.shutdown_after("");
    }

    /// The same as containerd asks, after it has deleted this container.
    pub fn shutdown_after(&self, id: &str) {
        let request = api::ShutdownRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        let _ = self.call::<api::Empty>("Shutdown", &request);
    }
}

/// An exec of a container.
#[derive(Debug)]
pub struct Exec {
    shim: Shim,
    id: String,
    exec: String,
}

impl Shim {
    /// Adds an exec to a container: a process as the OCI runtime spec describes it, whose streams
    /// are these FIFOs, or nothing where the path is empty.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn add_exec(
        &self,
        id: &str,
        exec: &str,
        process: &serde_json::Value,
        [stdin, stdout, stderr]: [String; 3],
    ) -> ttrpc::Result<Exec> {
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        };
        self.exec(&api::ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec.to_owned(),
            terminal: process["terminal"] == true,
            spec: MessageField::some(spec),
            stdin,
            stdout,
            stderr,
            ..Default::default()
        })?;
        Ok(self.exec_of(id, exec))
    }

    /// An exec that may have been added.
    pub fn exec_of(&self, id: &str, exec: &str) -> Exec {
        Exec {
            shim: self.clone(),
            id: id.to_owned(),
            exec: exec.to_owned(),
        }
    }
}

impl Exec {
    /// Starts it and returns its pid.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn start(&self) -> ttrpc::Result<u32> {
        let request = api::StartRequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            ..Default::default()
        };
        let response: api::StartResponse = self.shim.call("Start", &request)?;
        Ok(response.pid)
    }

    /// Its state.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn state(&self) -> ttrpc::Result<api::StateResponse> {
        let request = api::StateRequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            ..Default::default()
        };
        self.shim.call("State", &request)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn wait(&self) -> ttrpc::Result<api::WaitResponse> {
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            ..Default::default()
        };
        self.shim.call("Wait", &request)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn kill(&self, signal: i32) -> ttrpc::Result<()> {
        let request = api::KillRequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            signal: signal.unsigned_abs(),
            ..Default::default()
        };
        self.shim.call::<api::Empty>("Kill", &request).map(drop)
    }

    /// Deletes it.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn delete(&self) -> ttrpc::Result<api::DeleteResponse> {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            ..Default::default()
        };
        self.shim.call("Delete", &request)
    }

    /// Lets it see the end of its standard input.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn close_stdin(&self) -> ttrpc::Result<()> {
        let request = api::CloseIORequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            stdin: true,
            ..Default::default()
        };
        self.shim.call::<api::Empty>("CloseIO", &request).map(drop)
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    ///
    /// The shim's.
    pub fn resize(&self, width: u32, height: u32) -> ttrpc::Result<()> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: self.exec.clone(),
            width,
            height,
            ..Default::default()
        };
        self.shim.resize_pty(&request).map(drop)
    }
}

/// The code of an error that the shim gave, and its text.
///
/// # Errors
///
/// If the call succeeded or failed otherwise.
pub fn refusal<T: std::fmt::Debug>(outcome: ttrpc::Result<T>) -> Result<(Code, String)> {
    match outcome {
        Err(ttrpc::Error::RpcStatus(status)) => Ok((status.code(), status.message)),
        other => Err(format!("not an error of the shim: {other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn finished(script: &str, bound: Duration) -> Result<Ran> {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let ran = finish(&mut child, &mut reader, Instant::now() + bound);
        let _ = child.kill();
        let _ = child.wait();
        ran
    }

    #[test]
    fn a_command_has_ended_when_its_output_has() {
        let ran = finished("echo a; sleep 0.1; echo b; exit 3", DEADLINE).unwrap();
        assert_eq!(
            (ran.output.as_slice(), ran.status.code()),
            (&b"a\nb\n"[..], Some(3))
        );
    }

    #[test]
    fn a_command_that_does_not_end_is_given_up() {
        let bound = Duration::from_millis(100);
        let open = finished("exec sleep 60", bound).unwrap_err().to_string();
        assert!(open.contains("its output stays open"), "{open}");
        let closed = finished("exec sleep 60 >&-", bound)
            .unwrap_err()
            .to_string();
        assert!(closed.contains("it does not end"), "{closed}");
    }
}
