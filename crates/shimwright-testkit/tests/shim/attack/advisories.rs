//! Published attacks on other runtimes of containers, tried on this one.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::thread::LinkNameSpaceType;
use serde_json::{Value, json};
use shimwright_testkit::{Bundle, Containerd, Shim};

use super::spec::{KINDS, Kind, SharedVolume, start};
use crate::{end, finish, for_each_engine};

for_each_engine! {
    a_mount_does_not_follow_links_that_are_swapped_in_a_volume
    a_working_directory_is_never_the_nodes
    a_null_device_of_an_image_masks_nothing
    a_null_device_that_is_swapped_in_a_volume_masks_nothing
    a_console_of_an_image_is_no_link_to_elsewhere
    a_terminal_is_not_made_from_what_an_image_calls_one
    a_volume_in_the_place_of_proc_is_not_written_to
    a_link_in_the_place_of_proc_or_sys_leads_nowhere
}

/// How often something that needs luck is tried.
const TRIES: usize = 12;

/// A link from the root of a container to a place of the node, if nothing resolved it inside.
fn way_out(place: &Path) -> PathBuf {
    Path::new(&"../".repeat(24)).join(place.strip_prefix("/").unwrap())
}

/// A directory of the node in which nothing may be made.
fn marker_directory(containerd: &Containerd) -> PathBuf {
    let path = containerd.directory().join("node");
    fs::create_dir(&path).unwrap();
    path
}

fn assert_empty(directory: &Path) {
    let made: Vec<_> = fs::read_dir(directory).unwrap().collect();
    assert!(made.is_empty(), "{made:?}");
}

/// Swaps two names for as long as it lives, as another container with the same volume could.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    fn new(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // One of them may not be there yet.
                let _ = rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mountinfo(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap()
}

fn add_mount(bundle: Bundle, mount: Value) -> Bundle {
    bundle
        .spec(|spec| spec["mounts"].as_array_mut().unwrap().push(mount))
        .unwrap()
}

/// Takes mounts out of a spec by their places.
fn without_mounts(bundle: Bundle, places: &[&str]) -> Bundle {
    let is_kept = |mount: &Value| !places.iter().any(|place| mount["destination"] == *place);
    bundle
        .spec(|spec| spec["mounts"].as_array_mut().unwrap().retain(is_kept))
        .unwrap()
}

/// CVE-2021-30465 and CVE-2024-45310 of runc: the place of a mount is looked up, then swapped for a
/// link out of the root, and what is mounted or made lands on the node.
fn a_mount_does_not_follow_links_that_are_swapped_in_a_volume(engine: &str) {
    let containerd = crate::containerd(engine);
    let node = marker_directory(&containerd);
    let volume = containerd.directory().join("volume");
    fs::create_dir_all(volume.join("place")).unwrap();
    symlink(way_out(&node), volume.join("link")).unwrap();
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    bundle = bundle.file("/one", b"", 0o644).unwrap();
    let file = bundle.image().join("one");
    bundle = bundle.bind(&volume, "/volume").unwrap();
    bundle = add_mount(
        bundle,
        json!({ "destination": "/volume/place/made", "type": "tmpfs", "source": "tmpfs",
                "options": ["size=4321k"] }),
    );
    bundle = bundle.bind(&file, "/volume/place/file").unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let check = |pid| {
        // All mounts that a process can see are its container's.
        let mounts = mountinfo(pid);
        assert_eq!(mounts.matches("size=4324k").count(), 1, "{mounts}");
        assert_empty(&node);
    };
    let swapper = Swapper::new(volume.join("place"), volume.join("link"));
    for kind in KINDS.into_iter().cycle().take(TRIES) {
        bundle = bundle.args(kind.args()).unwrap();
        // It may be refused.
        if let Ok(pid) = shim.create(&bundle) {
            check(pid);
            end(&shim, "a");
        }
        assert_empty(&node);
    }
    drop(swapper);
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!own.contains("size=4324k"), "{own}");
    // This can be mounted if nobody is in the way.
    let (place, link) = (volume.join("place"), volume.join("link"));
    if place.is_symlink() {
        rustix::fs::renameat_with(CWD, &place, CWD, &link, RenameFlags::EXCHANGE).unwrap();
    }
    for kind in KINDS {
        bundle = bundle.args(kind.args()).unwrap();
        check(start(&shim, &mut bundle));
        end(&shim, "a");
    }
    finish(&containerd, &shim);
}

/// The directory at the top of where a process is, which `..` leads to.
fn top(pid: u32) -> (u64, u64) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(format!("/proc/{pid}/cwd"), flags, Mode::empty()).unwrap();
    let identify = |directory: &rustix::fd::OwnedFd| {
        let found = rustix::fs::statat(directory, c"", AtFlags::EMPTY_PATH).unwrap();
        (found.st_dev, found.st_ino)
    };
    loop {
        let above = rustix::fs::openat(&directory, c"..", flags, Mode::empty()).unwrap();
        if identify(&above) == identify(&directory) {
            return identify(&above);
        }
        directory = above;
    }
}

/// CVE-2024-21626 of runc: a descriptor of the node's was open while the working directory was
/// entered, and `/proc/self/fd` leads there.
fn a_working_directory_is_never_the_nodes(engine: &str) {
    let containerd = crate::containerd(engine);
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let check = |pid: u32, what: &str| {
        let root = fs::metadata(format!("/proc/{pid}/root/.")).unwrap();
        assert_eq!(top(pid), (root.dev(), root.ino()), "{what}");
    };
    let descriptors = 0..40;
    for number in descriptors.clone() {
        let cwd = format!("/proc/self/fd/{number}");
        bundle = bundle
            .spec(|spec| spec["process"]["cwd"] = json!(cwd))
            .unwrap();
        // Most are not there, or no directory.
        if let Ok(pid) = shim.create(&bundle) {
            check(pid, &cwd);
            end(&shim, "a");
        }
    }
    bundle = bundle
        .spec(|spec| spec["process"]["cwd"] = json!("/"))
        .unwrap();
    check(start(&shim, &mut bundle), "/");
    for number in descriptors {
        let mut process = Kind::Linux.process();
        process["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let id = format!("e{number}");
        let exec = shim
            .add_exec("a", &id, &process, Default::default())
            .unwrap();
        if let Ok(pid) = exec.start() {
            check(pid, &id);
            exec.kill(libc::SIGKILL).unwrap();
            exec.wait().unwrap();
        }
        exec.delete().unwrap();
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// Files that specs mask, as far as the kernel has them.
const MASKED: [&str; 4] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
];

/// Checks that what is masked is masked by the null device of the kernel.
fn check_masked(pid: u32) {
    for path in MASKED {
        let Ok(found) = fs::metadata(format!("/proc/{pid}/root{path}")) else {
            continue;
        };
        assert!(found.file_type().is_char_device(), "{path}");
        assert_eq!(found.rdev(), libc::makedev(1, 3), "{path}");
    }
    let mounts = mountinfo(pid);
    assert!(!mounts.contains("marker"), "{mounts}");
}

/// CVE-2025-31133 of runc and CVE-2025-62161 of youki: files are masked with what the image calls
/// the null device.
fn a_null_device_of_an_image_masks_nothing(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = Kind::Linux.waiting(&containerd, "a");
    let bundle = bundle.file("/marker", b"as it was", 0o666).unwrap();
    let mut bundle = without_mounts(bundle, &["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]);
    let marker = bundle.image().join("marker");
    let null = bundle.image().join("dev/null");
    fs::create_dir(null.parent().unwrap()).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    for (kind, is_link) in KINDS
        .into_iter()
        .flat_map(|kind| [(kind, true), (kind, false)])
    {
        let _ = fs::remove_file(&null);
        if is_link {
            symlink("/marker", &null).unwrap();
        } else {
            fs::write(&null, "marker").unwrap();
        }
        bundle = bundle.args(kind.args()).unwrap();
        if let Ok(pid) = shim.create(&bundle) {
            check_masked(pid);
            end(&shim, "a");
        }
        assert_eq!(fs::read(&marker).unwrap(), b"as it was");
    }
    finish(&containerd, &shim);
}

/// The same in a volume that another container changes meanwhile.
fn a_null_device_that_is_swapped_in_a_volume_masks_nothing(engine: &str) {
    let containerd = crate::containerd(engine);
    let volume = SharedVolume::new(&containerd);
    let bundle = Kind::Linux.waiting(&containerd, "a");
    let bundle = bundle.file("/marker", b"as it was", 0o666).unwrap();
    let bundle = without_mounts(bundle, &["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]);
    let mut bundle = bundle.bind(&volume.0, "/dev").unwrap();
    let marker = bundle.image().join("marker");
    let shim = containerd.start(&bundle).unwrap();
    let empty = || {
        for entry in fs::read_dir(&volume.0).unwrap() {
            let path = entry.unwrap().path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    };
    for kind in KINDS.into_iter().cycle().take(TRIES) {
        empty();
        symlink("/marker", volume.0.join("other")).unwrap();
        let swapper = Swapper::new(volume.0.join("null"), volume.0.join("other"));
        bundle = bundle.args(kind.args()).unwrap();
        let created = shim.create(&bundle);
        drop(swapper);
        if let Ok(pid) = created {
            check_masked(pid);
            end(&shim, "a");
        }
        assert_eq!(fs::read(&marker).unwrap(), b"as it was");
    }
    for kind in KINDS {
        bundle = bundle.args(kind.args()).unwrap();
        empty();
        // This is a place for devices, if nobody is in the way. Whoever brings one brings them all.
        // Engines that are linked statically read random numbers there.
        for (name, minor) in [("null", 3), ("random", 8), ("urandom", 9)] {
            let (path, mode) = (volume.0.join(name), Mode::from_raw_mode(0o666));
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(CWD, &path, kind, mode, libc::makedev(1, minor)).unwrap();
        }
        check_masked(start(&shim, &mut bundle));
        end(&shim, "a");
    }
    drop(volume);
    finish(&containerd, &shim);
}

/// Creates a container with a terminal, if that can be, and ends it after a look at its mounts.
fn with_terminal(shim: &Shim, mut bundle: Bundle, kind: Kind) -> Bundle {
    bundle = bundle.args(kind.args()).unwrap().terminal(80, 24).unwrap();
    let _keyboard = bundle.stdin().unwrap();
    let screen = bundle.stdout().unwrap();
    if let Ok(pid) = shim.create(&bundle) {
        let mounts = mountinfo(pid);
        assert!(!mounts.contains("marker"), "{mounts}");
        end(shim, "a");
    }
    drop(screen);
    for stream in ["stdin", "stdout"] {
        let _ = fs::remove_file(bundle.image().with_file_name(format!("a.{stream}")));
    }
    bundle
}

/// CVE-2025-52565 of runc: the console is mounted over what the image has there.
fn a_console_of_an_image_is_no_link_to_elsewhere(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = Kind::Linux.waiting(&containerd, "a");
    let bundle = bundle.file("/marker", b"as it was", 0o666).unwrap();
    let mut bundle = without_mounts(bundle, &["/dev", "/dev/shm", "/dev/mqueue"]);
    let devices = bundle.image().join("dev");
    fs::create_dir(&devices).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    for kind in KINDS {
        fs::remove_dir_all(&devices).unwrap();
        fs::create_dir_all(devices.join("pts")).unwrap();
        symlink("/marker", devices.join("console")).unwrap();
        bundle = with_terminal(&shim, bundle, kind);
        let marker = fs::read(bundle.image().join("marker")).unwrap();
        assert_eq!(marker, b"as it was");
    }
    finish(&containerd, &shim);
}

/// The other half: what is mounted there comes from what the image has at `/dev/pts`.
fn a_terminal_is_not_made_from_what_an_image_calls_one(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = Kind::Linux.waiting(&containerd, "a");
    let mut bundle = without_mounts(bundle, &["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]);
    let devices = bundle.image().join("dev");
    fs::create_dir(&devices).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    for kind in KINDS {
        fs::remove_dir_all(&devices).unwrap();
        fs::create_dir_all(devices.join("pts")).unwrap();
        for name in ["ptmx", "0", "1"] {
            fs::write(devices.join("pts").join(name), "marker").unwrap();
        }
        bundle = with_terminal(&shim, bundle, kind);
        let file = fs::read(devices.join("pts/ptmx")).unwrap();
        assert_eq!(file, b"marker");
    }
    finish(&containerd, &shim);
}

/// The value of a setting of a process's network.
fn setting(pid: u32, path: &str) -> String {
    let path = path.to_owned();
    let reader = std::thread::spawn(move || {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        fs::read_to_string(path).unwrap()
    });
    reader.join().unwrap().trim().to_owned()
}

/// CVE-2019-16884 and CVE-2025-52881 of runc and CVE-2025-62596 of youki: a volume is mounted over
/// `/proc`, through a link of the image, and what the runtime writes there for the container goes to
/// a file of the attacker's choice.
fn a_volume_in_the_place_of_proc_is_not_written_to(engine: &str) {
    const SETTING: &str = "sys/net/ipv4/ip_unprivileged_port_start";
    const SCORE: &str = "self/oom_score_adj";
    let containerd = crate::containerd(engine);
    let volume = containerd.directory().join("volume");
    let decoys = [SETTING, SCORE, "self/attr/exec", "self/attr/apparmor/exec"];
    for decoy in decoys {
        let decoy = volume.join(decoy);
        fs::create_dir_all(decoy.parent().unwrap()).unwrap();
        fs::write(decoy, "as it was").unwrap();
    }
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    symlink("/proc", bundle.image().join("volume")).unwrap();
    bundle = bundle.bind(&volume, "/volume").unwrap();
    bundle = bundle
        .spec(|spec| {
            spec["process"]["oomScoreAdj"] = json!(123);
            let name = "net.ipv4.ip_unprivileged_port_start";
            spec["linux"]["sysctl"] = json!({ name: "77" });
        })
        .unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let untouched = || {
        for decoy in decoys {
            assert_eq!(
                fs::read(volume.join(decoy)).unwrap(),
                b"as it was",
                "{decoy}"
            );
        }
    };
    let score = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    for kind in KINDS {
        bundle = bundle.args(kind.args()).unwrap();
        // Refusing it would do as well.
        let created = shim.create(&bundle);
        untouched();
        let Ok(pid) = created else {
            continue;
        };
        let path = format!("/proc/{SETTING}");
        assert_eq!(setting(pid, &path), "77", "{kind:?}");
        assert_eq!(score(pid).trim(), "123", "{kind:?}");
        for exec in KINDS {
            let mut process = exec.process();
            process["oomScoreAdj"] = json!(321);
            let id = format!("{exec:?}");
            let added = shim
                .add_exec("a", &id, &process, Default::default())
                .unwrap();
            if let Ok(pid) = added.start() {
                assert_eq!(score(pid).trim(), "321", "{kind:?}: {exec:?}");
            }
            untouched();
        }
        end(&shim, "a");
    }
    finish(&containerd, &shim);
}

/// CVE-2023-27561 of runc and CVE-2025-54867 of youki: `/proc` or `/sys` of the image is a link.
fn a_link_in_the_place_of_proc_or_sys_leads_nowhere(engine: &str) {
    let containerd = crate::containerd(engine);
    let node = marker_directory(&containerd);
    let mut bundle = Kind::Linux.waiting(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    for (kind, name) in KINDS
        .into_iter()
        .flat_map(|kind| [(kind, "proc"), (kind, "sys")])
    {
        for target in [way_out(&node), node.clone(), PathBuf::from("/elsewhere")] {
            let link = bundle.image().join(name);
            let _ = fs::remove_dir_all(&link).or_else(|_| fs::remove_file(&link));
            symlink(&target, &link).unwrap();
            bundle = bundle.args(kind.args()).unwrap();
            if let Ok(pid) = shim.create(&bundle) {
                // Guests have neither of them.
                let mounts = mountinfo(pid);
                assert!(!mounts.contains("/elsewhere"), "{mounts}");
                assert!(matches!(kind, Kind::Guest), "{name}: {}", target.display());
                end(&shim, "a");
            }
            assert_empty(&node);
            fs::remove_file(&link).unwrap();
        }
    }
    finish(&containerd, &shim);
}
