//! A private dockerd on a containerd of ours, in a network namespace of its own: its bridge, its
//! addresses and its ports are nobody else's, and are gone with the namespace.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use shimwright_testenv::containerd::{self, Containerd, LONG, SHORT};
use shimwright_testenv::error::{Context, Result, error};
use shimwright_testenv::process::{self, Finished, Process};

/// The runtime of the Wasmtime shim as the daemon's configuration calls it.
pub(crate) const CONFIGURED_RUNTIME: &str = "wasmtime";

/// The same with options, among them [`UNKNOWN_OPTION`].
pub(crate) const RUNTIME_WITH_OPTIONS: &str = "wasmtime-with-options";

/// An option that no shim of ours knows.
pub(crate) const UNKNOWN_OPTION: &str = "SystemdCgruop";

/// The executables of Debian's Docker, downloaded if need be.
pub(crate) fn binaries() -> Result<PathBuf> {
    containerd::unpacked(containerd::Release::V2)
}

/// A running dockerd that ends with its network when dropped.
///
/// Its containers are containerd's, so what is left of them is swept with the containerd.
pub(crate) struct Docker {
    binaries: PathBuf,
    busybox: PathBuf,
    directory: PathBuf,
    path: String,
    daemon: Option<Process>,
    /// Holds the network namespace, also while there is no daemon.
    network: Process,
}

impl Docker {
    /// Starts a dockerd that keeps its images and containers in `containerd`.
    pub(crate) fn start(containerd: &Containerd, busybox: &Path) -> Result<Self> {
        let binaries = binaries()?;
        let directory = containerd.directory().join("docker");
        let bin = directory.join("bin");
        fs::create_dir_all(&bin).context(format_args!("create {}", bin.display()))?;
        // `docker top` runs a `ps`, which not every machine has.
        std::os::unix::fs::symlink(busybox, bin.join("ps")).context("link ps")?;
        let path = [bin, binaries.join("usr/sbin"), binaries.join("usr/bin")];
        let path = path.map(|directory| directory.display().to_string());
        let mut docker = Self {
            path: format!("{}:{}", path.join(":"), containerd.path()),
            network: network(busybox)?,
            binaries,
            busybox: busybox.to_owned(),
            directory,
            daemon: None,
        };
        docker.configure(containerd)?;
        docker.launch()?;
        Ok(docker)
    }

    /// `docker` connected to this dockerd.
    pub(crate) fn docker(&self) -> Command {
        let mut docker = Command::new(self.binaries.join("usr/bin/docker"));
        docker
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.directory.join("client"))
            .env("DOCKER_CLI_HINTS", "false");
        docker
    }

    /// Runs `docker` with a deadline for commands that do not run a container.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Finished> {
        let mut docker = self.docker();
        docker.args(args);
        process::run(docker, SHORT)
    }

    /// Gets a page over HTTP from where the daemon is, which is where it publishes ports.
    pub(crate) fn fetch(&self, url: &str) -> Result<Finished> {
        let mut wget = self.in_network(&self.busybox)?;
        wget.args(["wget", "-q", "-O", "-", url]);
        process::run(wget, SHORT)
    }

    /// Ends the daemon alone, at once. Containers live on.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::KILL)?;
            daemon.finish(SHORT)?;
        }
        Ok(())
    }

    /// Starts the daemon after [`Self::kill`], with the directories it had before.
    pub(crate) fn relaunch(&mut self) -> Result<()> {
        // A daemon that was killed leaves it, and its pid may be another process's by now.
        let _ = fs::remove_file(self.directory.join("docker.pid"));
        self.launch()
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("dockerd.log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    fn configure(&self, containerd: &Containerd) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let namespace = containerd.namespace();
        let options = format!("{UNKNOWN_OPTION} = true\n");
        fs::write(self.directory.join("options.toml"), options)?;
        let shim = "io.containerd.wasmtime.v1";
        let config = json!({
            "containerd": containerd.socket().display().to_string(),
            // The same as ours, which holds the images and names the control groups.
            "containerd-namespace": namespace,
            "containerd-plugins-namespace": format!("{namespace}-plugins"),
            "cgroup-parent": format!("/{namespace}"),
            "features": { "containerd-snapshotter": true },
            "storage-driver": containerd.snapshotter(),
            "runtimes": {
                CONFIGURED_RUNTIME: { "runtimeType": shim },
                RUNTIME_WITH_OPTIONS: {
                    "runtimeType": shim,
                    "options": { "ConfigPath": at("options.toml") },
                },
            },
            "live-restore": true,
            "data-root": at("data"),
            "exec-root": at("exec"),
            "pidfile": at("docker.pid"),
            "hosts": [format!("unix://{}", self.socket().display())],
            // Published ports are served by docker-proxy, which every kernel can do.
            "iptables": false,
            "ip6tables": false,
        });
        Ok(fs::write(
            self.directory.join("daemon.json"),
            config.to_string(),
        )?)
    }

    fn launch(&mut self) -> Result<()> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.directory.join("dockerd.log"))?;
        let notify = self.directory.join("notify.sock");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify)?;
        let mut command = self.in_network(&self.binaries.join("usr/sbin/dockerd"))?;
        command
            .arg("--config-file")
            .arg(self.directory.join("daemon.json"))
            .env("PATH", &self.path)
            // As under systemd: dockerd says there when it is ready.
            .env("NOTIFY_SOCKET", &notify);
        command.stdout(log.try_clone()?).stderr(log);
        let daemon = Process::spawn_as_is(command)?;
        containerd::await_ready(&ready)
            .map_err(|err| error!("dockerd does not start: {err}\n{}", self.log()))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// A command in the network namespace of the daemon.
    fn in_network(&self, program: &Path) -> Result<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--net=/proc/{}/ns/net", self.network.pid()))
            .arg(program);
        Ok(nsenter)
    }
}

/// A process that keeps a new network namespace, where only the loopback is up.
fn network(busybox: &Path) -> Result<Process> {
    let mut unshare = Command::new("unshare");
    let script = r#""$0" ip link set lo up && echo up && exec sleep infinity"#;
    unshare
        .args(["--net", "sh", "-c", script])
        .arg(busybox)
        .env("LC_ALL", "C");
    let mut process = Process::spawn(unshare)?;
    process
        .wait_for_output("up", LONG)
        .context("make a network namespace")?;
    Ok(process)
}
