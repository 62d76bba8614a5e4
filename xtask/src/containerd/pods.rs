//! containerd's configuration for a kubelet. The runtime handler `wasmtime` is the one that
//! `examples/deploy` gives to users.

use std::fs;
use std::path::Path;

use super::{PAUSE, Release};
use crate::cargo;
use crate::error::{Context, Result};
use crate::network::Network;

/// The tables to be added to the configuration of a containerd that works in `directory`.
pub(super) fn config(
    release: Release,
    directory: &Path,
    snapshotter: &str,
    network: &Network,
) -> Result<String> {
    let (images, runtime) = if release < Release::V2 {
        let images = format!("sandbox_image = \"{PAUSE}\"");
        (images, "io.containerd.grpc.v1.cri")
    } else {
        (String::new(), "io.containerd.cri.v1.runtime")
    };
    let mut config = format!(
        r#"
[plugins."{runtime}"]
  {images}
  # For the network namespaces, which are beside everybody's else.
  netns_mounts_under_state_dir = true

[plugins."{runtime}".cni]
  bin_dir = "{bin}"
  conf_dir = "{conf}"

[plugins."{runtime}".containerd]
  default_runtime_name = "runc"

[plugins."{runtime}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."{runtime}".containerd.runtimes.runc.options]
  Root = "{root}"

"#,
        bin = network.plugins().display(),
        conf = network.config_directory().display(),
        root = directory.join("runc").display(),
    );
    if release < Release::V2 {
        let table = format!("[plugins.\"{runtime}\".containerd]\n");
        config = config.replace(
            &table,
            &format!("{table}  snapshotter = \"{snapshotter}\"\n"),
        );
    } else {
        config += &format!(
            r#"[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"

"#
        );
    }
    Ok(config + &handler(release)?)
}

/// The example for users, but for the version, which is there already, and systemd, which not every
/// machine that runs the tests has.
fn handler(release: Release) -> Result<String> {
    let name = if release < Release::V2 {
        "containerd-1.toml"
    } else {
        "containerd-2.toml"
    };
    let path = cargo::workspace_root().join("examples/deploy").join(name);
    let example = fs::read_to_string(&path).context(format_args!("read {}", path.display()))?;
    let lines = example
        .lines()
        .filter(|line| !line.starts_with("version ="));
    Ok(lines
        .map(|line| line.replace("SystemdCgroup = true", "SystemdCgroup = false") + "\n")
        .collect())
}
