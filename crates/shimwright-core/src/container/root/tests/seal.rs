//! What is read-only or inaccessible in the end, and the way into the root.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Bundle, apart, is_mounted};
use crate::error::chain;

/// Makes the root of a spec in all steps.
fn sealed(bundle: &Bundle, spec: &Value, no_pivot: bool) {
    let root = bundle.prepare_as(spec, false, no_pivot).unwrap();
    let steps = [root.mount(), root.enter(), root.seal()];
    for step in steps {
        step.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
}

fn image(bundle: &Bundle) {
    for directory in ["secrets", "kept/below", "tmp"] {
        fs::create_dir_all(bundle.root().join(directory)).unwrap();
        fs::write(bundle.root().join(directory).join("file"), "x").unwrap();
    }
    fs::write(bundle.root().join("key"), "x").unwrap();
}

#[test]
fn paths_are_masked_and_made_read_only() {
    let bundle = Bundle::new();
    image(&bundle);
    apart(|| {
        sealed(
            &bundle,
            &json!({
                "root": { "path": "/", "readonly": true },
                "mounts": [
                    { "destination": "/dev", "type": "tmpfs", "options": ["ro", "nosuid"] },
                    { "destination": "/tmp", "type": "tmpfs" },
                    { "destination": "/kept/below", "type": "tmpfs" }],
                "linux": {
                    "maskedPaths": ["/secrets", "/tmp/../secrets", "/key", "/none", "/kept/below"],
                    "readonlyPaths": ["/tmp", "/none", "/dev/null"] } }),
            false,
        );
        assert_eq!(fs::read_dir("/secrets").unwrap().count(), 0);
        assert!(fs::write("/secrets/x", "").is_err());
        assert_eq!(fs::read_to_string("/key").unwrap(), "");
        assert!(is_mounted(Path::new("/kept/below")));
        assert!(fs::write("/kept/below/x", "").is_err());
        for path in ["/new", "/tmp/new", "/dev/new"] {
            let error = fs::write(path, "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{path}");
        }
        let (flags, _) = bundle.flags("/dev");
        assert!(flags.contains("nosuid"), "{flags}");
    });
}

#[test]
fn the_mounts_of_the_node_are_gone() {
    let bundle = Bundle::new();
    apart(|| {
        let outside = bundle.outside();
        sealed(&bundle, &json!({}), false);
        assert!(!outside.exists());
        assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        let above: Vec<_> = fs::read_dir("/..").unwrap().collect();
        assert_eq!(above.len(), 1, "{above:?}");
    });
}

#[test]
fn a_root_can_be_moved_over_that_of_the_node() {
    let bundle = Bundle::new();
    image(&bundle);
    apart(|| {
        let outside = bundle.outside();
        sealed(&bundle, &json!({}), true);
        assert!(!outside.exists() && Path::new("/key").exists());
        assert_eq!(fs::read_dir("/..").unwrap().count(), 5);
    });
}

#[test]
fn a_stream_that_is_dev_null_is_the_containers() {
    let bundle = Bundle::new();
    apart(|| {
        let null = fs::File::open("/dev/null").unwrap();
        rustix::stdio::dup2_stdin(&null).unwrap();
        let before = rustix::fs::fstat(std::io::stdin()).unwrap();
        sealed(
            &bundle,
            &json!({ "mounts": [{ "destination": "/dev", "type": "tmpfs" }] }),
            false,
        );
        let after = rustix::fs::fstat(std::io::stdin()).unwrap();
        let own = rustix::fs::stat("/dev/null").unwrap();
        assert_eq!((after.st_dev, after.st_ino), (own.st_dev, own.st_ino));
        // Whoever is not root has the node's in there.
        if rustix::process::geteuid().is_root() {
            assert_eq!(before.st_rdev, after.st_rdev);
        }
    });
}
