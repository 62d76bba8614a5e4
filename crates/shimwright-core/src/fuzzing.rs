//! The parsers of external input, for the targets in `fuzz/`. A parser may refuse any input, but
//! must not panic, and what it accepts must be what the rest of core relies on.
//!
//! A test below runs the first inputs of the targets too.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::image::{ImageIndex, ImageManifest};
use oci_spec::runtime::{LinuxResources, Process, Spec};

use crate::cgroup;
use crate::cgroup::stats;
use crate::code::application;
use crate::code::image;
use crate::config::bundle;
use crate::config::options::{self, RuntimeOptions};
use crate::config::spec;
use crate::container::entrypoint::Entrypoint;
use crate::container::{entrypoint, home, join, rootfs, supported};
use crate::engine::artifact::{Kind, MAGIC, Wasm};
use crate::engine::limits::Limits;
use crate::engine::outbound::Outbound;
use crate::policy;
use crate::shim::bootstrap;
use crate::shim::metrics;
use crate::stdio::uri;

/// Takes any bytes.
pub type Parser = fn(&[u8]);

/// Every parser, by the name of its target and of the directory of what that begins with.
pub const PARSERS: [(&str, Parser); 13] = [
    ("annotations", annotations),
    ("application", application),
    ("bootstrap", bootstrap),
    ("config", config),
    ("figures", figures),
    ("image", image),
    ("options", options),
    ("outbound", outbound),
    ("passwd", passwd),
    ("record", record),
    ("resources", resources),
    ("uri", uri),
    ("wasm", wasm),
];

/// `config.json`: from a spec to what a guest is given and how its sandbox is built.
pub fn config(bytes: &[u8]) {
    let Ok(mut spec) = spec::parse(bytes) else {
        return;
    };
    let group = bundle::group(spec.annotations().as_ref(), "id");
    assert!(!group.is_empty());
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let devices = resources.and_then(|resources| resources.devices().as_deref());
    cgroup::devices::fuzz(devices.unwrap_or_default(), &spec);
    supported::fuzz(&spec);
    let process = spec.process().clone().unwrap_or_default();
    entrypoint::fuzz(spec.mounts().as_deref().unwrap_or_default(), &process);
    if let Ok(limits) = Limits::default().narrow_for(&spec) {
        for (name, _) in policy::env(&process, &limits) {
            assert!(limits.shows(&name));
        }
        limits.apply(&mut spec, Path::new("/empty"));
    }
    policy::restrict(&mut spec);
    for mount in spec.mounts().iter().flatten() {
        let kind = mount.typ().as_deref().unwrap_or_default();
        assert!(
            kind != "sysfs" && kind != "cgroup" && kind != "devpts",
            "{kind}"
        );
    }
    if let Some(process) = spec.process() {
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(process.terminal(), None);
    }
    if let Some(mut process) = spec.process().clone() {
        policy::capabilities::complete(&mut process, true);
        assert!(process.capabilities().is_some());
    }
    join::fuzz(spec, process);
    // The spec of a further process is one of its own.
    let _ = spec::parse_process(bytes);
}

/// The runtime options: the first byte says in which form.
pub fn options(bytes: &[u8]) {
    let Some((form, value)) = bytes.split_first() else {
        return;
    };
    match form {
        b't' => {
            if let Ok(text) = std::str::from_utf8(value) {
                let _ = toml::from_str::<RuntimeOptions>(text);
            }
        }
        // One that names a file would have it read.
        b'c' if !value.contains(&b'/') => options::fuzz("runtimeoptions.v1.Options", value),
        b'r' => options::fuzz("x/containerd.runc.v1.Options", value),
        _ => {}
    }
}

/// What a container asks for: `key=value` in each line, of annotations up to an empty line, and then
/// of variables.
pub fn annotations(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (annotations, variables) = text.split_once("\n\n").unwrap_or((text, ""));
    let annotations: HashMap<_, _> = annotations
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (format!("dev.shimwright.{key}"), value.to_owned()))
        .collect();
    let mut process = Process::default();
    process.set_env(Some(
        variables
            .lines()
            .map(|line| format!("SHIMWRIGHT_{line}"))
            .collect(),
    ));
    let mut spec = Spec::default();
    spec.set_annotations(Some(annotations));
    spec.set_process(Some(process));
    let node: Limits = toml::from_str(NODE).expect("the limits of the node are right");
    let Ok(narrowed) = node.narrow_for(&spec) else {
        return;
    };
    let again = node.narrow(&narrowed, "itself");
    assert_eq!(again.as_ref(), Ok(&narrowed), "it is not within the node's");
    assert!(!narrowed.shows("PATH"));
}

const NODE: &str = "time_limit = 60\nopen_files = 512\nlinear_memory = 1048576\nstack = 131072\n\
    outbound = ['10.0.0.0/8:443', 'fd00::/8']\nenvironment = ['APP_*']\nrootfs = 'read-only'\n";

/// Destinations in an annotation, and an address: `10.0.0.0/8:443 ::1 @127.0.0.1:80`.
pub fn outbound(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (list, address) = text.split_once('@').unwrap_or((text, ""));
    let Ok(outbound) = Outbound::new(list.split(' ')) else {
        return;
    };
    assert!(outbound.is_within(&outbound));
    let again = Outbound::new(outbound.list());
    assert_eq!(again.as_ref(), Ok(&outbound), "it is not as it was written");
    if let Ok(address) = address.parse() {
        let most = Outbound::new(["0.0.0.0/0", "::/0"]).expect("these are destinations");
        assert!(most.allows(address) && outbound.is_within(&most));
        outbound.allows(address);
    }
}

/// An image's index and manifest.
pub fn image(bytes: &[u8]) {
    if let Ok(index) = serde_json::from_slice::<ImageIndex>(bytes) {
        let _ = image::choose(&index);
    }
    if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(bytes) {
        image::layer(&manifest);
    }
}

/// The image's manifest of an application, or the plan of one.
pub fn application(bytes: &[u8]) {
    application::fuzz(bytes);
}

/// The beginning of a program and the name it is called by.
pub fn wasm(bytes: &[u8]) {
    if Kind::detect(bytes).is_ok() {
        assert!(bytes.starts_with(&MAGIC));
        let wasm = Wasm::new(bytes.to_vec()).expect("it has been detected");
        assert_eq!(wasm.bytes(), bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let entrypoint = Entrypoint::parse(text);
        assert!(text.starts_with(&entrypoint.path) && !entrypoint.function.is_empty());
    }
}

/// The name of a stream.
pub fn uri(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        uri::fuzz(text);
    }
}

/// An image's `/etc/passwd`.
pub fn passwd(bytes: &[u8]) {
    home::fuzz(bytes, 0);
}

/// What we have written down about a container.
pub fn record(bytes: &[u8]) {
    bundle::fuzz(bytes);
}

/// The input of `start`.
pub fn bootstrap(bytes: &[u8]) {
    bootstrap::fuzz(bytes);
}

/// An update of a container's limits.
pub fn resources(bytes: &[u8]) {
    if let Ok(resources) = serde_json::from_slice::<LinuxResources>(bytes) {
        cgroup::limits::fuzz(&resources);
        let devices = resources.devices().as_deref().unwrap_or_default();
        cgroup::devices::fuzz(devices, &Spec::default());
    }
}

/// Files of the kernel's; an empty line is between two of them.
pub fn figures(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (first, second) = text.split_once("\n\n").unwrap_or((text, text));
    cgroup::fuzz(first, second);
    stats::fuzz(first);
    metrics::fuzz(first);
    rootfs::fuzz(first);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_targets_begin_with_is_taken() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, parse) in PARSERS {
            let files = std::fs::read_dir(corpus.join(name)).unwrap();
            let run = files.map(|file| parse(&std::fs::read(file.unwrap().path()).unwrap()));
            assert_ne!(run.count(), 0, "{name}");
        }
    }
}
