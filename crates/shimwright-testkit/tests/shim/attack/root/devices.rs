//! Device nodes of an image or a volume.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode};
use shimwright_guests::{HELLO, IDLE};

use super::super::program;
use crate::exec;
use crate::{finish, for_each_engine};

for_each_engine! {
    a_device_in_place_of_the_entrypoint_is_not_opened
    a_device_of_an_image_cannot_be_opened_beside_a_guest
}

/// Makes a device node that is there on every machine: `/dev/null`.
fn device(path: &Path) {
    let device = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o777);
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, device).unwrap();
}

fn a_device_in_place_of_the_entrypoint_is_not_opened(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let path = bundle.image().join("device");
    device(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let bundle = bundle.args(&["/device"]).unwrap();
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &path, WatchFlags::OPEN | WatchFlags::ATTRIB).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    assert!(shim.create(&bundle).is_err());
    let mut event = [0; 512];
    let opened = rustix::io::read(&watch, &mut event);
    assert_eq!(opened, Err(rustix::io::Errno::AGAIN));
    // The watch works.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(rustix::io::read(&watch, &mut event).is_ok());
    finish(&containerd, &shim);
}

/// Opens the file of its argument, and says how that went.
const OPENS: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    printf("%d\n", open(argv[i], O_RDONLY) < 0 ? errno : 0);
  return 0;
}
"#;

fn a_device_of_an_image_cannot_be_opened_beside_a_guest(engine: &str) {
    for is_overlay in [false, true] {
        let containerd = crate::containerd(engine);
        let opens = program(&containerd, OPENS);
        let volume = containerd.directory().join("volume");
        fs::create_dir(&volume).unwrap();
        device(&volume.join("device"));
        let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
        device(&bundle.image().join("device"));
        let bundle = bundle.file("/opens", &opens, 0o755).unwrap();
        let bundle = bundle.bind(&volume, "/volume").unwrap();
        let bundle = if is_overlay {
            bundle.overlay().unwrap()
        } else {
            bundle
        };
        let container = exec::running(containerd, bundle);
        // A guest's own process is held to the same mounts.
        let args = ["/opens", "/device", "/volume/device", "/dev/null"];
        let expected = format!("{0}\n{0}\n0\n", libc::EACCES);
        assert_eq!(container.run("opens", &args).1, expected, "{is_overlay}");
        container.end();
    }
}
