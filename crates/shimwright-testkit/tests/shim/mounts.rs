//! Mounts of containers with other ids than those of the node, and devices with owners.

use std::fs;

use serde_json::{Value, json};
use shimwright_guests::HELLO;
use shimwright_testkit::{Bundle, Containerd};

use crate::attack::program;
use crate::{finish, for_each_engine, linux, run};

for_each_engine! {
    the_ids_of_an_image_and_of_volumes_are_mapped
    a_guest_runs_in_a_user_namespace
    a_device_has_the_mode_and_the_owner_of_the_spec
}

/// Says who owns the files of its arguments, and their modes.
const OWNERS: &str = r#"
#include <stdio.h>
#include <sys/stat.h>
int main(int argc, char **argv) {
  struct stat found;
  for (int i = 1; i < argc; i++) {
    if (stat(argv[i], &found)) printf("none\n");
    else printf("%d %d %o\n", found.st_uid, found.st_gid, found.st_mode & 07777);
  }
  return 0;
}
"#;

/// Puts a container into a user namespace whose ids begin at 100000.
fn in_user_namespace(bundle: Bundle) -> Bundle {
    let bundle = bundle.overlay().unwrap();
    let bundle = bundle.overlay_option("uidmap=0:100000:65536");
    let bundle = bundle.overlay_option("gidmap=0:100000:65536");
    // As a snapshotter does.
    let upper = bundle.image().with_file_name("a.upper");
    std::os::unix::fs::chown(upper, Some(100_000), Some(100_000)).unwrap();
    bundle
        .spec(|spec| {
            spec["linux"]["uidMappings"] = map();
            spec["linux"]["gidMappings"] = map();
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({ "type": "user" }));
        })
        .unwrap()
}

fn map() -> Value {
    json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }])
}

/// Runs a container and returns what it says.
fn output(containerd: &Containerd, mut bundle: Bundle) -> String {
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    run(&shim, "a");
    let text = output.text().unwrap();
    shim.delete("a").unwrap();
    finish(containerd, &shim);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left = containerd.directory().to_string_lossy().into_owned();
    assert!(!mounts.contains(&left), "{mounts}");
    text
}

fn the_ids_of_an_image_and_of_volumes_are_mapped(engine: &str) {
    let containerd = crate::containerd(engine);
    let volume = containerd.directory().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    let bundle = linux::bundle(&containerd, "a", "env")
        .file("/owners", &program(&containerd, OWNERS), 0o755)
        .unwrap()
        .file("/file", b"", 0o640)
        .unwrap();
    std::os::unix::fs::chown(bundle.image().join("file"), Some(7), Some(8)).unwrap();
    let paths = ["/file", "/own/file", "/container/file", "/plain/file"];
    let args = ["/owners"].into_iter().chain(paths).collect::<Vec<_>>();
    let bundle = in_user_namespace(bundle.args(&args).unwrap())
        .spec(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            let own = json!([{ "containerID": 0, "hostID": 100_005, "size": 1 }]);
            let options = ["rbind", "ro"];
            mounts.push(
                json!({ "destination": "/own", "source": volume, "type": "bind",
                "options": options, "uidMappings": own, "gidMappings": own }),
            );
            mounts.push(
                json!({ "destination": "/container", "source": volume, "type": "bind",
                "options": ["rbind", "ridmap"] }),
            );
            mounts.push(
                json!({ "destination": "/plain", "source": volume, "type": "bind",
                "options": options }),
            );
        })
        .unwrap();
    let text = output(&containerd, bundle);
    assert_eq!(text, "7 8 640\n5 5 644\n0 0 644\n65534 65534 644\n");
}

fn a_guest_runs_in_a_user_namespace(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let text = output(&containerd, in_user_namespace(bundle));
    assert!(!text.is_empty());
}

fn a_device_has_the_mode_and_the_owner_of_the_spec(engine: &str) {
    let containerd = crate::containerd(engine);
    let device = |path: &str, mode: u32| {
        json!({ "path": path, "type": "c", "major": 1, "minor": 5, "fileMode": mode,
            "uid": 3, "gid": 4 })
    };
    let bundle = linux::bundle(&containerd, "a", "env")
        .file("/owners", &program(&containerd, OWNERS), 0o755)
        .unwrap()
        .args(&["/owners", "/dev/x", "/elsewhere/y", "/dev/null"])
        .unwrap()
        .spec(|spec| {
            let devices = [device("/dev/x", 0o622), device("/elsewhere/y", 0o400)];
            spec["linux"]["devices"] = json!(devices);
        })
        .unwrap();
    let text = output(&containerd, bundle);
    assert_eq!(text, "3 4 622\n3 4 400\n0 0 666\n");
}
