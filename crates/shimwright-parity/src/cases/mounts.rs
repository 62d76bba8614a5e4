//! Mounts: their options, sources and destinations.

use rustix::mount::{MountFlags, mount};
use serde_json::json;

use crate::{Case, Stage};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = options_of_binds();
    cases.extend(options_of_file_systems());
    cases.extend(places());
    cases.extend(propagation());
    cases.extend(kinds());
    cases
}

/// Mounts something at the source of the case's bind mount.
pub(crate) fn mount_in_source(stage: &Stage) {
    let target = stage.on_node("source/late");
    stage.act(|| {
        std::fs::create_dir(&target)?;
        Ok(mount("late", &target, "tmpfs", MountFlags::empty(), None)?)
    });
}

/// Something mounted below the source already.
fn with_mount_below(stage: &mut Stage, options: &[&str]) {
    stage.bind("/v", options);
    mount_in_source(stage);
    stage.steps(&["write:/v/file", "write:/v/late/file"]);
}

/// One case for each list of options of a bind mount.
macro_rules! binds {
    ($($name:literal [$($option:literal),*]),* $(,)?) => { vec![$(
        Case::new(concat!("bind: ", $name), |stage| with_mount_below(stage, &[$($option),*]))
            .as_the_node(),
    )*] };
}

fn options_of_binds() -> Vec<Case> {
    let mut cases = binds![
        "bind" ["bind"], "rbind" ["rbind"], "no option but the type" [],
        "ro" ["bind", "ro"], "ro, with mounts below" ["rbind", "ro"], "rw" ["bind", "rw"],
        "rro" ["rbind", "rro"], "rro of a bind that is not recursive" ["bind", "rro"],
        "nosuid" ["bind", "nosuid"], "nodev" ["bind", "nodev"], "noexec" ["bind", "noexec"],
        "nosuid, nodev, noexec, ro" ["rbind", "nosuid", "nodev", "noexec", "ro"],
        "rnosuid, rnodev, rnoexec" ["rbind", "rnosuid", "rnodev", "rnoexec"],
        "suid, dev, exec" ["rbind", "suid", "dev", "exec"],
        "noatime" ["bind", "noatime"], "rnoatime" ["rbind", "rnoatime"],
        "relatime" ["bind", "relatime"], "strictatime" ["bind", "strictatime"],
        "nodiratime" ["bind", "nodiratime"], "norelatime" ["bind", "norelatime"],
        "rstrictatime" ["rbind", "rstrictatime"], "rrelatime" ["rbind", "rrelatime"],
        "nosymfollow" ["bind", "nosymfollow"], "rnosymfollow" ["rbind", "rnosymfollow"],
        "symfollow" ["bind", "symfollow"],
        "sync" ["bind", "sync"], "dirsync" ["bind", "dirsync"], "async" ["bind", "async"],
        "remount" ["bind", "remount"], "mand" ["bind", "mand"], "nomand" ["bind", "nomand"],
        "silent" ["bind", "silent"], "loud" ["bind", "loud"], "iversion" ["bind", "iversion"],
        "noiversion" ["bind", "noiversion"], "lazytime" ["bind", "lazytime"],
        "defaults" ["bind", "defaults"], "diratime" ["bind", "diratime"],
        "acl" ["bind", "acl"], "noacl" ["bind", "noacl"],
        "ro and rw: the last one counts" ["bind", "ro", "rw"],
        "rw and ro: the last one counts" ["bind", "rw", "ro"],
        "ro and rprivate" ["rbind", "rprivate", "ro"],
        "an unknown option" ["bind", "mode=755"],
    ];
    cases.push(Case::new(
        "bind: of a read-only source without ro",
        |stage| {
            stage.bind("/v", &["bind", "rw"]);
            let source = stage.on_node("source");
            stage.act(|| Ok(mount("tmpfs", source, "tmpfs", MountFlags::RDONLY, None)?));
            stage.steps(&["write:/v/file"]);
        },
    ));
    cases.push(Case::new("bind: keeps what its source has", |stage| {
        stage.bind("/v", &["bind", "ro"]);
        let source = stage.on_node("source");
        let flags =
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        stage.act(|| Ok(mount("tmpfs", source, "tmpfs", flags, None)?));
    }));
    cases
}

/// One case for each list of options of a tmpfs.
macro_rules! file_systems {
    ($($name:literal [$($option:literal),*]),* $(,)?) => { vec![$(
        Case::new(concat!("tmpfs: ", $name), |stage| {
            stage.tmpfs("/v", &[$($option),*]).steps(&["write:/v/file", "stat:/v"]);
        })
        .as_the_node(),
    )*] };
}

fn options_of_file_systems() -> Vec<Case> {
    file_systems![
        "no option" [], "size, mode, uid, gid" ["size=64k", "mode=700", "uid=5", "gid=6"],
        "ro" ["ro"], "rro" ["rro"], "nosuid, noexec, nodev" ["nosuid", "noexec", "nodev"],
        "noatime" ["noatime"], "strictatime" ["strictatime"], "relatime" ["relatime"],
        "nodiratime" ["nodiratime"],
        "sync, dirsync" ["sync", "dirsync"], "async" ["async"], "acl" ["acl"],
        "silent" ["silent"], "loud" ["loud"], "iversion" ["iversion"], "mand" ["mand"],
        "lazytime" ["lazytime"], "defaults" ["defaults"], "nosymfollow" ["nosymfollow"],
        "inode32" ["inode32"], "nr_inodes" ["nr_inodes=100"], "huge" ["huge=never"],
        "an unknown option" ["not-an-option"], "rw" ["rw"], "remount" ["remount"],
    ]
}

fn places() -> Vec<Case> {
    let mut cases = vec![
        Case::new("destination: a missing directory is made", |stage| {
            stage.bind("/new/below", &["bind"]);
        }),
        Case::new("destination: a missing file is made", |stage| {
            let source = stage.source_file("one");
            stage.mount(json!({
                "destination": "/new/file", "type": "bind", "source": source,
                "options": ["bind", "ro"],
            }));
            stage.steps(&["read:/new/file"]);
        }),
        Case::new("destination: a file", |stage| {
            let source = stage.source_file("one");
            stage.mount(json!({
                "destination": "/etc/group", "type": "bind", "source": source,
                "options": ["rbind", "ro"],
            }));
            stage.steps(&["read:/etc/group"]);
        }),
        Case::new("destination: with ..", |stage| {
            stage.bind("/a/../v", &["bind"]);
        }),
        Case::new("destination: .. above the root", |stage| {
            stage.bind("/../../v", &["bind"]);
        }),
        Case::new("destination: a link to a directory", |stage| {
            stage.directory("/there").link("/there", "/v");
            stage.bind("/v", &["bind"]);
        }),
        Case::new("destination: a link out of the root", |stage| {
            stage.link("../../../../../../there", "/v");
            stage.bind("/v", &["bind"]);
        }),
        Case::new("destination: below a link", |stage| {
            stage.directory("/there").link("/there", "/v");
            stage.bind("/v/below", &["bind"]);
        }),
        Case::new("destination: a dangling link", |stage| {
            let source = stage.source_file("one");
            stage.link("/usr/share/zoneinfo/UTC", "/etc/localtime");
            stage.mount(json!({
                "destination": "/etc/localtime", "type": "bind", "source": source,
                "options": ["bind", "ro"],
            }));
            stage.steps(&["lstat:/etc/localtime", "read:/etc/localtime"]);
        }),
        Case::new("destination: relative", |stage| {
            stage.bind("v/below", &["bind"]);
        }),
        Case::new("destination: with slashes at the end", |stage| {
            stage.bind("//v//below//", &["bind"]);
        }),
        Case::new("destination: a place twice", |stage| {
            stage.tmpfs("/v", &["size=64k"]).bind("/v", &["bind"]);
        }),
        Case::new("destination: below an earlier mount", |stage| {
            stage.tmpfs("/v", &["size=64k"]).bind("/v/below", &["bind"]);
        }),
        Case::new("destination: below /proc", |stage| {
            let source = stage.source_file("one");
            stage.mount(json!({
                "destination": "/proc/cpuinfo", "type": "bind", "source": source,
                "options": ["bind"],
            }));
            stage.steps(&["read:/proc/cpuinfo"]);
        }),
        Case::new("destination: below /sys", |stage| {
            stage.bind("/sys/kernel", &["bind"]);
        }),
        Case::new("destination: below /dev", |stage| {
            stage.bind("/dev/new", &["bind"]);
        }),
    ];
    cases.extend(sources());
    cases
}

fn sources() -> Vec<Case> {
    vec![
        Case::new("source: none, of a tmpfs", |stage| {
            stage.mount(json!({ "destination": "/v", "type": "tmpfs" }));
        }),
        Case::new("source: none, of proc", |stage| {
            stage.without_mounts("/proc");
            stage.mount(json!({ "destination": "/proc", "type": "proc" }));
        }),
        Case::new("source: a link", |stage| {
            stage.source("real");
            let link = stage.on_node("link");
            stage.act(|| std::os::unix::fs::symlink("real", &link));
            stage.mount(json!({
                "destination": "/v", "type": "bind", "source": link, "options": ["bind"],
            }));
        }),
        Case::new("source: relative to the bundle", |stage| {
            // The bundle is made by each runtime in its own way: only `.` is there in all of them.
            stage.mount(json!({
                "destination": "/v", "type": "bind", "source": "config.json", "options": ["bind"],
            }));
        }),
        Case::new("source: a socket", |stage| {
            let path = stage.on_node("socket");
            stage.act(|| std::os::unix::net::UnixListener::bind(&path).map(drop));
            stage.mount(json!({
                "destination": "/run/socket", "type": "bind", "source": path,
                "options": ["bind"],
            }));
            stage.steps(&["lstat:/run/socket"]);
        }),
        Case::new("source: a device", |stage| {
            stage.mount(json!({
                "destination": "/dev/other", "type": "bind", "source": "/dev/zero",
                "options": ["bind"],
            }));
        }),
    ]
}

/// One case for each propagation of a bind mount.
macro_rules! propagations {
    ($($name:literal $root:tt [$($option:literal),*]),* $(,)?) => { vec![$(
        Case::new(concat!("propagation: ", $name), |stage| {
            stage.linux(json!({ "rootfsPropagation": $root }));
            stage.bind("/v", &[$($option),*]);
        })
        .meanwhile(mount_in_source),
    )*] };
}

fn propagation() -> Vec<Case> {
    propagations![
        "none" null ["rbind"], "rprivate" null ["rbind", "rprivate"],
        "private" null ["rbind", "private"], "rslave" null ["rbind", "rslave"],
        "slave" null ["bind", "slave"], "rshared" null ["rbind", "rshared"],
        "shared" null ["bind", "shared"], "unbindable" null ["bind", "unbindable"],
        "runbindable" null ["rbind", "runbindable"],
        "rshared, with a shared root" "rshared" ["rbind", "rshared"],
        "rslave, with an rslave root" "rslave" ["rbind", "rslave"],
        "rprivate, with an rslave root" "rslave" ["rbind", "rprivate"],
        "rprivate, with a shared root" "rshared" ["rbind", "rprivate"],
        "none, with an rslave root" "rslave" ["rbind"],
    ]
}

fn kinds() -> Vec<Case> {
    vec![
        Case::new("type: cgroup", |stage| {
            stage.mount(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            }));
            stage.steps(&["list:/sys/fs/cgroup", "mkdir:/sys/fs/cgroup/pids/x"]);
            stage.steps(&["mkdir:/sys/fs/cgroup/x"]);
        }),
        Case::new("type: cgroup, in a cgroup namespace", |stage| {
            stage.namespace(json!({ "type": "cgroup" }));
            stage.mount(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            }));
            stage.steps(&["list:/sys/fs/cgroup", "mkdir:/sys/fs/cgroup/pids/x"]);
            stage.steps(&["mkdir:/sys/fs/cgroup/x"]);
        }),
        Case::new("type: cgroup, writable", |stage| {
            stage.namespace(json!({ "type": "cgroup" }));
            stage.mount(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "rw"],
            }));
            stage.steps(&["mkdir:/sys/fs/cgroup/pids/x", "mkdir:/sys/fs/cgroup/x"]);
        }),
        Case::new("type: none, with bind", |stage| {
            let source = stage.source("source");
            stage.mount(json!({
                "destination": "/v", "type": "none", "source": source, "options": ["rbind", "ro"],
            }));
        }),
        Case::new("type: absent, with bind", |stage| {
            let source = stage.source("source");
            stage.mount(json!({
                "destination": "/v", "source": source, "options": ["rbind", "ro"],
            }));
        }),
        Case::new("type: sysfs, writable", |stage| {
            stage.without_mounts("/sys");
            stage.mount(json!({
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev"],
            }));
        }),
        Case::new("type: proc, with an option", |stage| {
            stage.without_mounts("/proc");
            stage.mount(json!({
                "destination": "/proc", "type": "proc", "source": "proc",
                "options": ["nosuid", "hidepid=2"],
            }));
        }),
        Case::new("type: devpts, of another kind", |stage| {
            stage.without_mounts("/dev/pts");
            stage.mount(json!({
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0600"],
            }));
        }),
        Case::new("tmpcopyup: what the image has is copied", |stage| {
            stage
                .tmpfs("/etc", &["tmpcopyup"])
                .steps(&["list:/etc", "read:/etc/group"]);
        }),
        Case::new("overlay: as a mount", |stage| {
            for layer in ["lower", "upper", "work"] {
                stage.source(&format!("layers/{layer}"));
            }
            let work = stage.on_node("layers/work/file");
            stage.act(|| std::fs::remove_file(work));
            let option = |name: &str, layer: &str| {
                format!(
                    "{name}={}",
                    stage.on_node(&format!("layers/{layer}")).display()
                )
            };
            let options = [
                option("lowerdir", "lower"),
                option("upperdir", "upper"),
                option("workdir", "work"),
            ];
            stage.mount(json!({
                "destination": "/v", "type": "overlay", "source": "overlay", "options": options,
            }));
        }),
        Case::new("/dev: read-only", |stage| {
            let mounts = stage.spec["mounts"].as_array_mut();
            for mount in mounts.into_iter().flatten() {
                if mount["destination"] == "/dev" {
                    mount["options"] = json!(["nosuid", "strictatime", "mode=755", "ro"]);
                }
            }
            stage.steps(&["write:/dev/new"]);
        }),
        Case::new("/dev: a bind of the node's", |stage| {
            stage.without_mounts("/dev");
            stage.mount(json!({
                "destination": "/dev", "type": "bind", "source": "/dev", "options": ["bind"],
            }));
        }),
        Case::new("mappings: ids of a bind mount", |stage| {
            let source = stage.source("source");
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            stage.mount(json!({
                "destination": "/v", "type": "bind", "source": source,
                "options": ["bind", "idmap"], "uidMappings": map, "gidMappings": map,
            }));
            stage.steps(&["stat:/v/file", "stat:/v"]);
        }),
        Case::new("mappings: ids of all mounts below", |stage| {
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            with_mount_below(stage, &["rbind", "ridmap"]);
            if let Some(mount) = stage.spec["mounts"]
                .as_array_mut()
                .and_then(|all| all.last_mut())
            {
                mount["uidMappings"] = map.clone();
                mount["gidMappings"] = map;
            }
            stage.steps(&["stat:/v/file", "stat:/v/late"]);
        }),
    ]
}
