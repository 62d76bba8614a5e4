//! A private containerd: unpacked from a Debian archive, with directories and a socket of its own.

pub mod pods;

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::debian;
use crate::error::{Context, Result, ensure, error};
use crate::image::{Image, Platform};
use crate::leak::Ground;
use crate::network::Network;
use crate::process::{self, Finished, Process};
use crate::workspace;

/// For commands that only ask the daemon.
pub const SHORT: Duration = Duration::from_secs(20);
/// For commands that run a container or unpack an image.
pub const LONG: Duration = Duration::from_secs(60);

/// The versions of containerd we are tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.6.
    V1_6,
    /// 1.7.
    V1_7,
    /// 2.x.
    V2,
}

impl Release {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::V1_6, Self::V1_7, Self::V2];

    /// `1.6`, `1.7`, or any `2.` something.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "1.6" => Ok(Self::V1_6),
            "1.7" => Ok(Self::V1_7),
            _ if text == "2" || text.starts_with("2.") => Ok(Self::V2),
            _ => Err(error!(
                "there is no containerd `{text}` here: choose 1.6, 1.7 or 2.x"
            )),
        }
    }

    /// Whether it can unpack images whose layer is the program itself.
    pub fn has_wasm_layers(self) -> bool {
        self >= Self::V1_7
    }

    /// Whether we test Docker on it. Its client is that of containerd 2, which no longer promises
    /// to work with 1.6.
    pub fn has_docker(self) -> bool {
        self >= Self::V1_7
    }

    /// Whether `ctr run` can be told a user.
    pub fn has_user_option(self) -> bool {
        self >= Self::V1_7
    }

    /// Whether its configuration is of version 3, with tables of other names.
    fn has_version_3(self) -> bool {
        self >= Self::V2
    }

    /// The plugin whose configuration has the runtimes for pods.
    pub fn runtime_plugin(self) -> &'static str {
        if self.has_version_3() {
            "io.containerd.cri.v1.runtime"
        } else {
            "io.containerd.grpc.v1.cri"
        }
    }

    /// The configuration that we give to users.
    pub fn example(self) -> PathBuf {
        let name = if self.has_version_3() {
            "containerd-2.toml"
        } else {
            "containerd-1.toml"
        };
        workspace::root().join("examples/deploy").join(name)
    }

    /// What its version starts with.
    fn prefix(self) -> &'static str {
        match self {
            Self::V1_6 => "1.6.",
            Self::V1_7 => "1.7.",
            Self::V2 => "2.",
        }
    }

    /// The Debian suite that has it.
    fn suite(self) -> &'static str {
        match self {
            Self::V1_6 => "bookworm",
            Self::V1_7 => "trixie",
            Self::V2 => "sid",
        }
    }

    /// Its package and the others we use of that suite. One list per suite, because asking for
    /// another one would download everything again.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::V1_6 => &[
                "containerd",
                "busybox-static",
                "containernetworking-plugins",
                "crun",
                "runc",
            ],
            Self::V1_7 => &["containerd"],
            Self::V2 => &["containerd", "docker-cli", "docker.io"],
        }
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V1_7 => "1.7",
            Self::V2 => "2.x",
        })
    }
}

/// The directory with the executables of a release, downloaded if need be.
pub fn binaries(release: Release) -> Result<PathBuf> {
    let directory = unpacked(release)?.join("usr/bin");
    let mut command = Command::new(directory.join("containerd"));
    command.arg("--version");
    let version = process::run(command, SHORT)?.success()?;
    let number = version
        .split(' ')
        .nth(2)
        .unwrap_or_default()
        .trim_start_matches('v');
    ensure!(
        number.starts_with(release.prefix()),
        "Debian {} no longer has containerd {release}, but {number}",
        release.suite()
    );
    Ok(directory)
}

/// Other programs that tests and benchmarks use: `usr/bin/crun`, `usr/sbin/runc`, `bin/busybox`,
/// and the network plugins in `usr/lib/cni`.
pub fn tools() -> Result<PathBuf> {
    unpacked(Release::V1_6)
}

/// The root of what is unpacked of the suite that has a release.
pub fn unpacked(release: Release) -> Result<PathBuf> {
    debian::unpack(release.suite(), release.packages())
}

/// The image of a pod's first container, which only holds the pod's namespaces.
pub const PAUSE: &str = "e2e.invalid/pause:1";

/// The containerd namespace of pods.
pub const PODS: &str = "k8s.io";

/// The plugins that serve a kubelet.
const KUBERNETES_PLUGINS: [&str; 5] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.sandbox.controller.v1.podsandbox",
];

/// A running containerd that disappears, with everything it started, when dropped.
pub struct Containerd {
    release: Release,
    binaries: PathBuf,
    path: String,
    namespace: String,
    snapshotter: &'static str,
    ground: Ground,
    daemon: Option<Process>,
    network: Option<Network>,
    // Last, because a directory can only be removed when nothing is mounted in it.
    directory: tempfile::TempDir,
}

impl Containerd {
    /// Starts a containerd that finds shims in `shims`, in order of preference.
    pub fn start(release: Release, shims: &[&Path]) -> Result<Self> {
        let mut containerd = Self::prepare(release, shims)?;
        let config = containerd.config(&KUBERNETES_PLUGINS);
        containerd.launch_with(&config)?;
        Ok(containerd)
    }

    /// The same, with the plugins that serve a kubelet, and a network for pods.
    pub fn start_for_pods(release: Release, shims: &[&Path]) -> Result<Self> {
        let mut containerd = Self::prepare(release, shims)?;
        let directory = containerd.directory();
        let network = Network::configure(&tools()?, &containerd.namespace, directory)?;
        let pods = pods::config(release, directory, containerd.snapshotter, &network)?;
        containerd.network = Some(network);
        let config = containerd.config(&[]) + &pods;
        containerd.launch_with(&config)?;
        Ok(containerd)
    }

    fn prepare(release: Release, shims: &[&Path]) -> Result<Self> {
        debian::require_root("containerd")?;
        crate::leak::adopt_orphans()?;
        let binaries = binaries(release)?;
        let directory = tempfile::Builder::new().prefix("shimwright-").tempdir()?;
        let mut path: Vec<_> = shims
            .iter()
            .map(|shim| shim.display().to_string())
            .collect();
        path.push(binaries.display().to_string());
        path.extend(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(str::to_owned));
        // It names the cgroups of the containers, so it must be nobody else's. Letters and digits
        // of the directory's name are unique on this machine.
        let namespace = directory
            .path()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let namespace = namespace.replace('_', "");
        for name in ["root", "state", "tmp", "opt", "shim-cache"] {
            fs::create_dir(directory.path().join(name))?;
        }
        Ok(Self {
            release,
            binaries,
            path: path.join(":"),
            ground: Ground::survey(directory.path(), &namespace),
            namespace,
            snapshotter: snapshotter(directory.path())?,
            daemon: None,
            network: None,
            directory,
        })
    }

    /// Its version.
    pub fn release(&self) -> Release {
        self.release
    }

    /// The places where it and its shims leave traces.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The program itself.
    pub fn executable(&self) -> PathBuf {
        self.binaries.join("containerd")
    }

    /// The path of a shim in the directory that is preferred.
    pub fn shim(&self, name: &str) -> PathBuf {
        Path::new(self.path.split(':').next().unwrap_or_default()).join(name)
    }

    /// The directory that has all its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `ctr` connected to this containerd.
    pub fn ctr(&self) -> Command {
        let mut ctr = Command::new(self.binaries.join("ctr"));
        ctr.arg("--address")
            .arg(self.socket())
            .args(["--namespace", &self.namespace]);
        ctr.env("TMPDIR", self.directory().join("tmp"));
        ctr
    }

    /// Runs `ctr` with a deadline for commands that do not run a container.
    pub fn ask(&self, args: &[&str]) -> Result<Finished> {
        let mut ctr = self.ctr();
        ctr.args(args);
        process::run(ctr, SHORT)
    }

    /// Brings an image into containerd's store.
    pub fn import(&self, image: &Image) -> Result<()> {
        self.import_into(&self.namespace, image)
    }

    /// The same for the containers of pods.
    pub fn import_for_pods(&self, image: &Image) -> Result<()> {
        self.import_into(PODS, image)
    }

    fn import_into(&self, namespace: &str, image: &Image) -> Result<()> {
        let archive = self.directory().join("image.tar");
        image.write(&archive)?;
        let mut ctr = self.ctr();
        // The last one counts.
        ctr.args(["--namespace", namespace]);
        ctr.args(["image", "import", "--snapshotter", self.snapshotter]);
        if image.platform == Platform::Wasm {
            ctr.args(["--platform", "wasi/wasm"]);
        }
        ctr.arg(&archive);
        process::run(ctr, LONG)?.success()?;
        fs::remove_file(archive)?;
        Ok(())
    }

    /// `ctr run` with the snapshotter that works here; options, image, id and arguments follow.
    pub fn ctr_run(&self, runtime: &str) -> Command {
        let mut ctr = self.ctr();
        ctr.args([
            "run",
            "--snapshotter",
            self.snapshotter,
            "--runtime",
            runtime,
        ]);
        ctr.arg("--fifo-dir").arg(self.directory().join("fifo"));
        ctr
    }

    /// Ends the daemon alone, at once. Shims and guests live on.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::KILL)?;
            daemon.finish(SHORT)?;
        }
        Ok(())
    }

    /// Starts the daemon after [`Self::kill`], with the directories it had before.
    pub fn relaunch(&mut self) -> Result<()> {
        self.launch()
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("containerd.log")).unwrap_or_default()
    }

    /// The search path of the daemon, which begins with the shims.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where images and containers are; it names the containers' control groups as well.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The snapshotter that works here.
    pub fn snapshotter(&self) -> &'static str {
        self.snapshotter
    }

    /// The path of containerd's gRPC socket.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("containerd.sock")
    }

    /// The configuration without the plugins `disabled`, and without those that reach out of our
    /// directory.
    fn config(&self, disabled: &[&str]) -> String {
        let directory = self.directory();
        let at = |name: &str| directory.join(name).display().to_string();
        let disabled: String = disabled
            .iter()
            .map(|plugin| format!("  \"{plugin}\",\n"))
            .collect();
        format!(
            r#"version = {version}
root = "{root}"
state = "{state}"
disabled_plugins = [
{disabled}  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
"#,
            version = if self.release.has_version_3() { 3 } else { 2 },
            root = at("root"),
            state = at("state"),
            socket = self.socket().display(),
            opt = at("opt"),
        )
    }

    fn launch_with(&mut self, config: &str) -> Result<()> {
        fs::write(self.directory().join("config.toml"), config)?;
        // Whatever this machine allows guests, the tests set their own limits.
        self.configure_shims("")?;
        self.launch()
    }

    fn shim_configuration(&self) -> PathBuf {
        self.directory().join("shim.toml")
    }

    /// Replaces the node's configuration of shims.
    pub fn configure_shims(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.shim_configuration(), text)?)
    }

    fn launch(&mut self) -> Result<()> {
        let directory = self.directory().to_owned();
        let log = File::options()
            .append(true)
            .create(true)
            .open(directory.join("containerd.log"))?;
        let notify = directory.join("notify.sock");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify)?;
        let mut command = Command::new(self.executable());
        command.arg("--config").arg(directory.join("config.toml"));
        command
            .env("PATH", &self.path)
            .env("TMPDIR", directory.join("tmp"));
        // As under systemd: containerd says there when it is ready.
        command.env("NOTIFY_SOCKET", &notify);
        command.env("SHIMWRIGHT_CACHE_DIR", directory.join("shim-cache"));
        command.env("SHIMWRIGHT_CONFIG", self.shim_configuration());
        command.stdout(log.try_clone()?).stderr(log);
        let daemon = Process::spawn_as_is(command)?;
        await_ready(&ready).map_err(|err| {
            error!(
                "containerd {} does not start: {err}\n{}",
                self.release,
                self.log()
            )
        })?;
        self.daemon = Some(daemon);
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.daemon = None;
        self.ground.sweep();
        // After the pods, whose links lead to its bridge.
        self.network = None;
    }
}

/// Waits for `READY=1`, in slices so that an interrupt is noticed.
pub fn await_ready(socket: &UnixDatagram) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let end = Instant::now() + LONG;
    let mut message = [0; 256];
    while Instant::now() < end {
        process::check_interrupt()?;
        if let Ok(length) = socket.recv(&mut message)
            && message[..length].starts_with(b"READY=1")
        {
            return Ok(());
        }
    }
    Err(error!("not ready within {LONG:?}"))
}

/// overlayfs cannot be stacked on itself, as it would be in a container with such a root.
fn snapshotter(directory: &Path) -> Result<&'static str> {
    const OVERLAYFS: i64 = 0x794c_7630;
    let doing = format!("examine the file system of {}", directory.display());
    let stat = rustix::fs::statfs(directory).context(doing)?;
    Ok(if stat.f_type == OVERLAYFS {
        "native"
    } else {
        "overlayfs"
    })
}
