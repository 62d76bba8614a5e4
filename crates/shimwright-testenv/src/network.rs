//! The network of pods: a bridge that leads nowhere, by the CNI plugins of Debian.
//!
//! The bridge has no address, so that the plugin neither makes the machine a router nor needs
//! iptables, and the same addresses can be used by several containerds of ours at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::containerd;
use crate::error::{Context, Result};
use crate::process;

/// What the addresses of pods begin with.
pub const SUBNET: &str = "10.88.0.";

/// How the names of our bridges begin. A network link's name has 15 characters at most.
pub const BRIDGES: &str = "shimw-";

/// Where libcni keeps the results of plugins, which containerd cannot change.
const RESULTS: &str = "/var/lib/cni/results";

/// One network, whose bridge disappears when dropped.
pub struct Network {
    tools: PathBuf,
    name: String,
    directory: PathBuf,
}

impl Network {
    /// Writes what containerd needs to know into `directory`. The bridge appears with the first pod.
    pub fn configure(tools: &Path, name: &str, directory: &Path) -> Result<Self> {
        let network = Self {
            tools: tools.to_owned(),
            name: name.to_owned(),
            directory: directory.to_owned(),
        };
        let config = json!({
            "cniVersion": "0.4.0",
            "name": name,
            "plugins": [{
                "type": "bridge",
                "bridge": bridge(name),
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": format!("{SUBNET}0/24") }]],
                    "dataDir": directory.join(ADDRESSES),
                },
            }],
        });
        let path = network.config_directory();
        fs::create_dir(&path).context(format_args!("create {}", path.display()))?;
        fs::write(path.join("pods.conflist"), config.to_string())?;
        Ok(network)
    }

    /// containerd's `conf_dir`.
    pub fn config_directory(&self) -> PathBuf {
        self.directory.join("cni")
    }

    /// containerd's `bin_dir`.
    pub fn plugins(&self) -> PathBuf {
        self.tools.join("usr/lib/cni")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let bridge = bridge(&self.name);
        if Path::new("/sys/class/net").join(&bridge).exists() {
            let mut ip = Command::new(self.tools.join("bin/busybox"));
            ip.args(["ip", "link", "delete", &bridge]);
            // What is left is found by `leak::traces`.
            let _ = process::run(ip, containerd::SHORT);
        }
        // They fail if somebody else has results there.
        let _ = fs::remove_dir(RESULTS);
        let _ = Path::new(RESULTS).parent().map(fs::remove_dir);
    }
}

/// Where the plugin for addresses keeps a file for each that is in use.
const ADDRESSES: &str = "cni-addresses";

/// The name of a network's bridge: the part of the network's name that no other network has.
fn bridge(network: &str) -> String {
    let own = network.rsplit('-').next().unwrap_or(network);
    format!("{BRIDGES}{own}")
}

/// What pods have left of a network: links, addresses, namespaces and results, one line each.
pub fn leftovers(name: &str, directory: &Path) -> Vec<String> {
    let links = Path::new("/sys/class/net").join(bridge(name)).join("brif");
    let mut found = list("network link", &links);
    let addresses = list("address", &directory.join(ADDRESSES).join(name));
    // Beside them are the last address given and a lock.
    found.extend(
        addresses
            .into_iter()
            .filter(|line| line.contains(&format!("/{SUBNET}"))),
    );
    for plugin in fs::read_dir(directory.join("state"))
        .into_iter()
        .flatten()
        .flatten()
    {
        found.extend(list("network namespace", &plugin.path().join("netns")));
    }
    found.extend(results(&directory.to_string_lossy()));
    found
}

/// Results that mention `text`.
pub fn results(text: &str) -> Vec<String> {
    let mut found = list("network result", Path::new(RESULTS));
    found.retain(|line| {
        let path = line.rsplit(' ').next().unwrap_or_default();
        fs::read_to_string(path).is_ok_and(|result| result.contains(text))
    });
    found
}

fn list(what: &str, directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| format!("{what} {}", entry.path().display()))
        .collect()
}
