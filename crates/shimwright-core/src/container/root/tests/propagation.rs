//! What the node's mounts and the container's tell each other.

use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use serde_json::json;

use super::{Bundle, apart, is_mounted, tmpfs};
use crate::sys;

/// What the mount of a volume, which the node shares, says about its propagation in the container.
fn of_volume(root: Option<&str>, options: &[&str], is_guest: bool, expected: &str) {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        share(&volume);
        // Its mounts would be gone otherwise.
        let _node = std::fs::File::open("/proc/self/ns/mnt").unwrap();
        sys::process::unshare(UnshareFlags::NEWNS).unwrap();
        let options: Vec<_> = ["rbind"].iter().chain(options).collect();
        let mut spec = json!({ "mounts": [
            { "destination": "/v", "source": volume, "options": options }] });
        if let Some(root) = root {
            spec["linux"] = json!({ "rootfsPropagation": root });
        }
        let root = bundle.prepare_as(&spec, is_guest, false).unwrap();
        root.mount().unwrap();
        root.enter().unwrap();
        assert_eq!(bundle.flags("/v").1, expected, "{spec}");
    });
}

fn share(volume: &Path) {
    tmpfs(volume, MountFlags::empty());
    let shared = MountPropagationFlags::SHARED;
    rustix::mount::mount_change(volume, shared).unwrap();
}

#[test]
fn a_volume_follows_the_node_unless_it_is_told_otherwise() {
    of_volume(None, &[], false, "master");
    of_volume(None, &["rslave"], false, "master");
    of_volume(None, &["private"], false, "");
    of_volume(None, &["rprivate"], false, "");
    of_volume(None, &["rshared"], false, "shared master");
    of_volume(None, &["unbindable"], false, "unbindable");
    of_volume(None, &["shared", "private"], false, "");
}

#[test]
fn the_propagation_of_the_root_is_that_of_its_mounts() {
    of_volume(Some("rslave"), &[], false, "master");
    of_volume(Some("rprivate"), &[], false, "");
    of_volume(Some("rshared"), &["rshared"], false, "shared");
    of_volume(Some("rshared"), &["rslave"], false, "shared master");
    of_volume(Some("shared"), &[], false, "shared");
}

#[test]
fn a_guest_sees_what_is_mounted_later_only_if_it_is_to() {
    of_volume(None, &[], true, "");
    of_volume(None, &["rslave"], true, "master");
    of_volume(Some("rshared"), &["rshared"], true, "shared");
}

#[test]
fn mounts_reach_each_other_as_they_say() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        share(&volume);
        for name in ["from-node", "from-container"] {
            std::fs::create_dir(volume.join(name)).unwrap();
        }
        let namespace = || std::fs::File::open("/proc/self/ns/mnt").unwrap();
        let node = namespace();
        sys::process::unshare(UnshareFlags::NEWNS).unwrap();
        let root = bundle.mount(
            &json!({ "linux": { "rootfsPropagation": "rshared" }, "mounts": [
            { "destination": "/both", "source": volume, "options": ["rbind", "rshared"] },
            { "destination": "/follows", "source": volume, "options": ["rbind", "rslave"] },
            { "destination": "/alone", "source": volume, "options": ["rbind", "rprivate"] }] }),
        );
        let root = root.unwrap();
        let mounted = bundle.root();
        tmpfs(&mounted.join("both/from-container"), MountFlags::empty());
        assert!(is_mounted(&mounted.join("follows/from-container")));
        assert!(!is_mounted(&mounted.join("alone/from-container")));
        let container = namespace();
        root.enter().unwrap();
        let enter = |namespace: &std::fs::File| {
            use std::os::fd::AsFd;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
        };
        enter(&node);
        assert!(is_mounted(&volume.join("from-container")));
        // The root of the container is none of the node's mounts.
        assert!(!is_mounted(&bundle.root()));
        tmpfs(&volume.join("from-node"), MountFlags::empty());
        enter(&container);
        assert!(is_mounted(Path::new("/both/from-node")));
        assert!(is_mounted(Path::new("/follows/from-node")));
        assert!(!is_mounted(Path::new("/alone/from-node")));
    });
}

#[test]
fn propagation_that_is_unknown_or_not_safe_is_refused() {
    let bundle = Bundle::new();
    let of_root = |wanted: &str, no_pivot| {
        let spec = json!({ "linux": { "rootfsPropagation": wanted } });
        bundle.prepare_as(&spec, false, no_pivot).is_ok()
    };
    assert!(of_root("", true) && of_root("rslave", true) && of_root("private", false));
    assert!(!of_root("private", true) && !of_root("rprivate", true));
    assert!(!of_root("public", false));
}
