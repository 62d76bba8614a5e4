//! Mounts and their options.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::mount::MountFlags;
use serde_json::{Value, json};

use super::{Bundle, apart, in_user_namespace, is_mounted, tmpfs};

fn has(flags: &str, wanted: &str) -> bool {
    flags.split(',').any(|flag| flag == wanted)
}

#[test]
fn every_kind_of_destination_has_its_place_inside_of_the_root() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    let file = volume.join("file");
    fs::create_dir(bundle.root().join("etc")).unwrap();
    symlink("../../usr/share/zone", bundle.root().join("etc/localtime")).unwrap();
    symlink("/var", bundle.root().join("alias")).unwrap();
    apart(|| {
        bundle.enter(&json!({ "mounts": [
            { "destination": "/missing/deeply", "source": volume, "options": ["rbind"] },
            { "destination": "/a/../v", "type": "bind", "source": volume },
            { "destination": "relative/../r", "source": volume, "options": ["bind"] },
            { "destination": "/etc/localtime", "source": file, "options": ["bind", "ro"] },
            { "destination": "/alias/run", "source": volume, "options": ["bind"] },
            { "destination": "/scratch", "type": "tmpfs" },
        ]}));
        for place in [
            "/missing/deeply/file",
            "/v/file",
            "/r/file",
            "/usr/share/zone",
            "/var/run/file",
        ] {
            assert_eq!(fs::read_to_string(place).unwrap(), "volume", "{place}");
        }
        assert!(!Path::new("/a").exists());
        assert!(is_mounted(Path::new("/scratch")));
        assert!(fs::write("/usr/share/zone", "x").is_err());
        let made = fs::metadata("/missing").unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o755);
    });
}

#[test]
fn a_source_that_is_missing_is_named() {
    let bundle = Bundle::new();
    apart(|| {
        let spec = json!({ "mounts": [
            { "destination": "/v", "source": "/no/such", "options": ["rbind"] }] });
        let reason = bundle.refused(&spec);
        assert!(
            reason.contains("/no/such") && reason.contains("/v"),
            "{reason}"
        );
        assert!(!bundle.root().join("v").exists());
    });
}

#[test]
fn options_of_a_bind_mount_are_kept() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        tmpfs(&volume, MountFlags::NODEV | MountFlags::NOSUID);
        fs::create_dir(volume.join("below")).unwrap();
        tmpfs(&volume.join("below"), MountFlags::empty());
        let bind = |options: &[&str]| {
            json!({ "mounts": [
            { "destination": "/v", "source": volume, "options": options }] })
        };
        let flags = |options: &[&str]| {
            let flags = std::cell::OnceCell::new();
            // Each in a namespace of its own.
            let bundle = &bundle;
            let spec = bind(options);
            let (mut read, write) = std::io::pipe().unwrap();
            apart(move || {
                bundle.enter(&spec);
                let below = match is_mounted(Path::new("/v/below")) {
                    true => bundle.flags("/v/below").0,
                    false => String::new(),
                };
                let text = format!("{} {below}", bundle.flags("/v").0);
                std::io::Write::write_all(&mut &write, text.as_bytes()).unwrap();
            });
            let mut text = String::new();
            std::io::Read::read_to_string(&mut read, &mut text).unwrap();
            flags.set(text).unwrap();
            let text = flags.into_inner().unwrap();
            let (top, below) = text.split_once(' ').unwrap();
            (top.to_owned(), below.to_owned())
        };
        // The mount's own, if nothing is asked for.
        let (top, below) = flags(&["rbind"]);
        assert!(has(&top, "nosuid") && has(&top, "nodev") && has(&below, "rw"));
        // Only what is asked for, and only of the mount itself.
        let (top, below) = flags(&["rbind", "ro", "noexec", "nosymfollow"]);
        assert!(
            has(&top, "ro") && has(&top, "noexec") && has(&top, "nosymfollow"),
            "{top}"
        );
        assert!(!has(&top, "nodev") && has(&below, "rw"), "{top} {below}");
        let (top, below) = flags(&["rbind", "rro", "rnosymfollow"]);
        assert!(has(&top, "ro") && has(&below, "ro") && has(&below, "nosymfollow"));
        assert!(has(&top, "nodev"), "{top}");
        let (_, below) = flags(&["bind"]);
        assert_eq!(below, "");
        let (top, _) = flags(&["bind", "noatime", "nodiratime"]);
        assert!(has(&top, "noatime") && has(&top, "nodiratime"), "{top}");
        let (top, _) = flags(&["bind", "strictatime"]);
        assert!(!has(&top, "relatime") && !has(&top, "noatime"), "{top}");
        // What no table knows.
        flags(&["bind", "acl", "loud", "silent", "iversion", "noiversion"]);
    });
}

#[test]
fn locked_flags_of_the_node_stay() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        tmpfs(&volume, MountFlags::NODEV | MountFlags::RDONLY);
        in_user_namespace(|| {
            let bind = |options: Value| {
                json!({ "mounts": [
                { "destination": "/v", "source": volume, "options": options }] })
            };
            let reason = bundle.refused(&bind(json!(["rbind", "rw"])));
            assert!(reason.contains("not permitted"), "{reason}");
            let reason = bundle.refused(&bind(json!(["rbind", "ro", "noatime"])));
            assert!(reason.contains("not permitted"), "{reason}");
        });
        in_user_namespace(|| {
            bundle.enter(&json!({ "mounts": [
                { "destination": "/v", "source": volume, "options": ["rbind", "ro", "noexec"] }] }));
            let (flags, _) = bundle.flags("/v");
            for flag in ["ro", "nodev", "noexec"] {
                assert!(has(&flags, flag), "{flags}");
            }
        });
    });
}

#[test]
fn options_of_a_new_file_system_are_kept() {
    let bundle = Bundle::new();
    apart(|| {
        let options = [
            "sync",
            "dirsync",
            "nosuid",
            "noexec",
            "nosymfollow",
            "size=64k",
            "mode=1700",
        ];
        let root = bundle.enter(&json!({ "mounts": [
            { "destination": "/v", "type": "tmpfs", "source": "name", "options": options },
            { "destination": "/ro", "type": "tmpfs", "options": ["ro", "acl"] },
            { "destination": "/ro/below", "type": "tmpfs", "options": ["rro"] },
            { "destination": "/w", "type": "tmpfs", "options": ["ro", "rw", "lazytime"] }] }));
        let line = bundle.line("/v");
        for part in [
            "nosuid,noexec",
            "nosymfollow",
            "tmpfs name rw,sync,dirsync,size=64k,mode=1700",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(bundle.line("/w").contains("lazytime"));
        // Until then, files may be made there.
        assert!(has(&bundle.flags("/ro").0, "rw"));
        root.seal().unwrap();
        assert!(has(&bundle.flags("/ro").0, "ro"));
        assert!(has(&bundle.flags("/ro/below").0, "ro"));
        assert!(has(&bundle.flags("/w").0, "rw"));
    });
    apart(|| {
        let reason = bundle.refused(&json!({ "mounts": [
            { "destination": "/v", "type": "tmpfs", "options": ["size=many"] }] }));
        assert!(reason.contains("size"), "{reason}");
    });
}

#[test]
fn a_file_system_in_memory_has_the_mode_of_its_place() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.root().join("tmp")).unwrap();
    let mode = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(bundle.root().join("tmp"), mode).unwrap();
    apart(|| {
        bundle.enter(&json!({ "mounts": [
            { "destination": "/tmp", "type": "tmpfs" },
            { "destination": "/new", "type": "tmpfs" },
            { "destination": "/new/tmp", "type": "tmpfs", "options": ["mode=700"] }] }));
        let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            ["/tmp", "/new", "/new/tmp"].map(mode),
            [0o1777, 0o1777, 0o700]
        );
    });
}

#[test]
fn remount_changes_what_is_mounted() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        bundle.enter(&json!({ "mounts": [
            { "destination": "/v", "source": volume, "options": ["bind"] },
            { "destination": "/v", "source": volume, "options": ["bind", "remount", "ro"] },
            { "destination": "/t", "type": "tmpfs", "options": ["size=1m"] },
            { "destination": "/t", "type": "tmpfs", "options": ["remount", "size=64k", "noexec"] }] }));
        assert!(has(&bundle.flags("/v").0, "ro"));
        let line = bundle.line("/t");
        assert!(
            line.contains("size=64k") && line.contains("noexec"),
            "{line}"
        );
    });
    apart(|| {
        let reason = bundle.refused(&json!({ "mounts": [
            { "destination": "/x", "source": volume, "options": ["bind", "remount", "ro"] }] }));
        assert!(reason.contains("Invalid argument"), "{reason}");
    });
}

#[test]
fn a_directory_is_copied_up_with_owners_modes_and_attributes() {
    let bundle = Bundle::new();
    let etc = bundle.root().join("etc");
    fs::create_dir_all(etc.join("deep/er")).unwrap();
    fs::write(etc.join("deep/er/file"), "content").unwrap();
    fs::set_permissions(etc.join("deep/er/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(etc.join("deep"), fs::Permissions::from_mode(0o2711)).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o751)).unwrap();
    symlink("/proc/self/exe", etc.join("link")).unwrap();
    let fifo = etc.join("fifo");
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    apart(|| {
        bundle.enter(&json!({ "mounts": [
            { "destination": "/etc", "type": "tmpfs", "options": ["tmpcopyup", "nosuid"] }] }));
        assert!(is_mounted(Path::new("/etc")));
        assert_eq!(fs::read_to_string("/etc/deep/er/file").unwrap(), "content");
        let mode = |path: &str| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode("/etc"), 0o751);
        assert_eq!(mode("/etc/deep"), 0o2711);
        assert_eq!(mode("/etc/deep/er/file"), 0o4750);
        assert_eq!(mode("/etc/fifo"), 0o640);
        let target = fs::read_link("/etc/link").unwrap();
        assert_eq!(target, Path::new("/proc/self/exe"));
        fs::write("/etc/new", "").unwrap();
    });
    assert!(!etc.join("new").exists());
}

#[test]
fn mapped_ids_are_for_bind_mounts_and_need_both_maps() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    let map = json!([{ "containerID": 0, "hostID": 5, "size": 1 }]);
    let reason = |mount: Value| {
        let prepared = bundle.prepare(&json!({ "mounts": [mount] }));
        crate::error::chain(&prepared.err().unwrap())
    };
    let found = reason(json!({ "destination": "/v", "type": "tmpfs", "options": ["idmap"] }));
    assert!(found.contains("only bind mounts"), "{found}");
    let bind = |more: Value| {
        let mut mount = json!({ "destination": "/v", "source": volume, "options": ["bind"] });
        mount["uidMappings"] = more;
        mount
    };
    assert!(reason(bind(map)).contains("gidMappings"));
}

#[test]
fn a_remount_without_a_flag_needs_a_mount_too() {
    let bundle = Bundle::new();
    let volume = bundle.volume("volume");
    apart(|| {
        let reason = bundle.refused(&json!({ "mounts": [
            { "destination": "/x", "source": volume, "options": ["bind", "remount"] }] }));
        assert!(reason.contains("Invalid argument"), "{reason}");
    });
}
