//! Images that want something outside of their root to be touched.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::{Bundle, apart, is_mounted};

/// Has a link of the image lead to a directory of the node.
fn lead_outside(bundle: &Bundle, link: &str) {
    symlink(bundle.outside(), bundle.root().join(link)).unwrap();
}

#[test]
fn a_link_in_place_of_dev_leads_nowhere_else() {
    let bundle = Bundle::new();
    lead_outside(&bundle, "dev");
    apart(|| {
        bundle.mount(&json!({})).unwrap();
        bundle.outside_is_untouched();
        // It was followed inside of the root.
        let inside = bundle.outside();
        let inside = inside.strip_prefix("/").unwrap();
        assert!(bundle.root().join(inside).join("null").exists());
    });
}

#[test]
fn links_on_the_way_to_a_place_stay_inside() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    lead_outside(&bundle, "a");
    fs::create_dir(bundle.root().join("b")).unwrap();
    symlink("../../outside/file", bundle.root().join("b/file")).unwrap();
    apart(|| {
        bundle
            .mount(&json!({ "mounts": [
                { "destination": "/a/v", "source": volume, "options": ["bind"] },
                { "destination": "/b/file", "source": volume.join("file"), "options": ["bind"] },
                { "destination": "/a/tmp", "type": "tmpfs" }],
                "linux": { "devices": [
                    { "path": "/a/fifo", "type": "p" }] } }))
            .unwrap();
        bundle.outside_is_untouched();
        assert!(bundle.root().join("outside/file").is_file());
        assert!(!is_mounted(&bundle.outside()));
    });
}

#[test]
fn nothing_is_mounted_over_the_root() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    symlink("/", bundle.root().join("top")).unwrap();
    for destination in ["/", "/..", "/top", "/top/."] {
        apart(|| {
            let reason = bundle.refused(&json!({ "mounts": [
                { "destination": destination, "source": volume, "options": ["bind"] }] }));
            assert!(reason.contains("over the root"), "{reason}");
        });
    }
}

/// A spec with a `/proc` of the kernel's, and one more mount.
fn with_proc(bundle: &Bundle, destination: &str, more: Value) -> Value {
    let volume = bundle.directory.path().join("volume");
    let mut mount = json!({ "destination": destination, "source": volume.join("file"),
        "options": ["bind"] });
    for (key, value) in more.as_object().unwrap() {
        mount[key] = value.clone();
    }
    json!({ "mounts": [
        { "destination": "/proc", "source": "/proc", "options": ["rbind"] }, mount] })
}

#[test]
fn proc_stays_what_it_is() {
    let bundle = Bundle::new();
    bundle.volume("volume");
    symlink("/proc/sys", bundle.root().join("sys")).unwrap();
    for (destination, more, said) in [
        ("/proc/self", json!({}), "inside /proc"),
        ("/proc/sys/kernel/core_pattern", json!({}), "inside /proc"),
        ("/sys/kernel/core_pattern", json!({}), "inside /proc"),
        (
            "/proc",
            json!({ "type": "tmpfs", "options": [] }),
            "not of type proc",
        ),
        (
            "/proc",
            json!({ "type": "sysfs", "options": [] }),
            "not of type proc",
        ),
        (
            "/proc",
            json!({ "source": bundle.outside() }),
            "not of type proc",
        ),
    ] {
        apart(|| {
            let spec = with_proc(&bundle, destination, more);
            let reason = bundle.refused(&spec);
            assert!(reason.contains(said), "{destination}: {reason}");
        });
    }
    apart(|| {
        bundle
            .mount(&with_proc(&bundle, "/proc/uptime", json!({})))
            .unwrap();
        let uptime = bundle.root().join("proc/uptime");
        assert_eq!(fs::read_to_string(uptime).unwrap(), "volume");
    });
}

#[test]
fn proc_and_sysfs_need_an_ordinary_directory() {
    for kind in ["proc", "sysfs"] {
        let bundle = Bundle::new();
        lead_outside(&bundle, kind);
        fs::write(bundle.root().join("file"), "").unwrap();
        for destination in [kind, "file"] {
            apart(|| {
                let reason = bundle.refused(&json!({ "mounts": [
                    { "destination": format!("/{destination}"), "type": kind }] }));
                assert!(reason.contains("ordinary directory"), "{reason}");
            });
        }
        bundle.outside_is_untouched();
    }
}

#[test]
fn copying_up_opens_no_file_of_the_node() {
    let bundle = Bundle::new();
    fs::write(bundle.outside().join("secret"), "secret").unwrap();
    fs::create_dir(bundle.root().join("etc")).unwrap();
    symlink(bundle.outside(), bundle.root().join("etc/directory")).unwrap();
    symlink(
        bundle.outside().join("secret"),
        bundle.root().join("etc/file"),
    )
    .unwrap();
    apart(|| {
        bundle.enter(&json!({ "mounts": [
            { "destination": "/etc", "type": "tmpfs", "options": ["tmpcopyup"] }] }));
        assert!(fs::symlink_metadata("/etc/directory").unwrap().is_symlink());
        assert!(fs::symlink_metadata("/etc/file").unwrap().is_symlink());
    });
}

#[test]
fn a_dev_null_that_is_another_file_is_not_opened() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.root().join("dev")).unwrap();
    fs::write(bundle.root().join("dev/null"), "").unwrap();
    apart(|| {
        let root = bundle.enter(&json!({}));
        let reason = crate::error::chain(&root.seal().unwrap_err());
        assert!(reason.contains("/dev/null"), "{reason}");
    });
}
