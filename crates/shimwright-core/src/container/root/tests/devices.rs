//! Devices and the links of `/dev`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::makedev;
use serde_json::json;

use super::{Bundle, apart, in_user_namespace};

fn number(path: &str) -> u64 {
    let found = fs::metadata(path).unwrap();
    assert!(found.file_type().is_char_device(), "{path}");
    found.rdev()
}

fn default_devices_are_there() {
    for (path, major, minor) in [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ] {
        assert_eq!(number(path), makedev(major, minor), "{path}");
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o666, "{path}");
    }
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let found = fs::read_link(Path::new("/dev").join(link)).unwrap();
        assert_eq!(found, Path::new(target));
    }
}

#[test]
fn every_container_has_the_default_devices() {
    let bundle = Bundle::new();
    let dev =
        json!({ "mounts": [{ "destination": "/dev", "type": "tmpfs", "options": ["mode=755"] }] });
    apart(|| {
        bundle.enter(&dev);
        default_devices_are_there();
    });
    // A mount of the image's own is none of the node's.
    assert_eq!(fs::read_dir(bundle.root().join("dev")).unwrap().count(), 0);
    in_user_namespace(|| {
        let mut spec = dev.clone();
        spec["linux"] = json!({ "namespaces": [{ "type": "user" }, { "type": "mount" }] });
        bundle.enter(&spec);
        default_devices_are_there();
        assert!(super::is_mounted(Path::new("/dev/null")));
    });
}

#[test]
fn a_container_without_a_mount_for_dev_has_them_in_its_image() {
    let bundle = Bundle::new();
    apart(|| {
        bundle.enter(&json!({}));
        default_devices_are_there();
    });
    assert!(bundle.root().join("dev/ptmx").is_symlink());
}

#[test]
fn a_dev_of_the_spec_stays_as_it_is() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        let root = bundle.enter(&json!({ "mounts": [
            { "destination": "/dev/", "source": volume, "options": ["bind", "ro"] }] }));
        root.seal().unwrap();
        assert!(!Path::new("/dev/null").exists());
    });
}

#[test]
fn devices_may_be_anywhere_and_there_twice() {
    let bundle = Bundle::new();
    let zero = json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 });
    // Anybody may make one of these.
    let fifo = |path: &str| json!({ "path": path, "type": "p", "fileMode": 0o622 });
    fs::create_dir(bundle.root().join("dev")).unwrap();
    symlink("../made/there", bundle.root().join("dev/zero")).unwrap();
    apart(|| {
        bundle.enter(&json!({ "linux": { "devices": [
            zero, zero, fifo("/y"), fifo("/a/../b/c"), fifo("/y")] } }));
        for path in ["/made/there", "/dev/zero"] {
            assert_eq!(number(path), makedev(1, 5), "{path}");
        }
        for path in ["/y", "/b/c"] {
            let found = fs::metadata(path).unwrap();
            assert!(found.file_type().is_fifo(), "{path}");
            assert_eq!(found.mode() & 0o777, 0o622, "{path}");
        }
    });
}
