//! containerd's configuration for a kubelet. The runtime handler `wasmtime` is the one that
//! `examples/deploy` gives to users.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{PAUSE, Release};
use crate::error::{Context, Result};
use crate::network::Network;

/// How long a kubelet's exec waits for processes that hold its output after its own end.
pub const DRAIN: Duration = Duration::from_secs(2);

/// The tables to be added to the configuration of a containerd that works in `directory`.
pub(super) fn config(
    release: Release,
    directory: &Path,
    snapshotter: &str,
    network: &Network,
) -> Result<String> {
    let runtime = release.runtime_plugin();
    // Version 3 of the configuration has split one plugin in two.
    let (pause, images) = if release.has_version_3() {
        (
            String::new(),
            format!(
                r#"[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}""#
            ),
        )
    } else {
        (
            format!("sandbox_image = \"{PAUSE}\""),
            format!(
                r#"[plugins."{runtime}".containerd]
  snapshotter = "{snapshotter}""#
            ),
        )
    };
    let config = format!(
        r#"
[plugins."{runtime}"]
  # The default is a directory of the whole machine.
  netns_mounts_under_state_dir = true
  # A machine that is a container itself may not protect a pause from the kernel.
  restrict_oom_score_adj = true
  {pause}
  {drain}

[plugins."{runtime}".cni]
  bin_dir = "{bin}"
  conf_dir = "{conf}"

[plugins."{runtime}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."{runtime}".containerd.runtimes.runc.options]
  Root = "{root}"

{images}

"#,
        drain = drain(release),
        bin = network.plugins().display(),
        conf = network.config_directory().display(),
        root = directory.join("runc").display(),
    );
    Ok(config + &handler(release)?)
}

/// 1.6 waits for ever.
fn drain(release: Release) -> String {
    let line = format!("drain_exec_sync_io_timeout = \"{}s\"", DRAIN.as_secs());
    Some(line)
        .filter(|_| release >= Release::V1_7)
        .unwrap_or_default()
}

/// The example for users, but for the version, which is there already, and systemd, which not every
/// machine that runs the tests has.
fn handler(release: Release) -> Result<String> {
    let path = release.example();
    let example = fs::read_to_string(&path).context(format_args!("read {}", path.display()))?;
    let lines = example
        .lines()
        .filter(|line| !line.starts_with("version ="));
    Ok(lines
        .map(|line| line.replace("SystemdCgroup = true", "SystemdCgroup = false") + "\n")
        .collect())
}
