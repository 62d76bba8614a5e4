//! Runtime options, as containerd's clients send them.

use std::path::PathBuf;

use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::protos::api::CreateTaskRequest;
use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::protos::protobuf::{Message, MessageField};
use shimwright_testkit::protos::shim::oci::Options;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Shim};

use crate::{finish, for_each_engine, refused, run, started};

for_each_engine! {
    the_shim_is_put_into_its_control_group
    a_control_group_that_is_missing_fails_the_start
    a_start_that_fails_takes_no_other_of_its_pod_along
    pipes_are_given_to_the_user_of_the_options
    limits_of_a_runtime_handler_count
    a_misspelt_option_is_refused_and_named
}

fn runc(options: &Options) -> Any {
    Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().unwrap(),
        ..Default::default()
    }
}

/// As the CRI plugin sends them: TOML in field 3 of `runtimeoptions.v1.Options`.
pub(crate) fn cri(toml: &str) -> Any {
    let mut value = vec![0x1a, u8::try_from(toml.len()).unwrap()];
    value.extend(toml.as_bytes());
    Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value,
        ..Default::default()
    }
}

pub(crate) fn request(bundle: &Bundle, options: Any) -> CreateTaskRequest {
    CreateTaskRequest {
        options: MessageField::some(options),
        ..bundle.request()
    }
}

/// A cgroup in every hierarchy that is mounted, removed in the end.
struct Group(Vec<PathBuf>);

impl Group {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut directories = Vec::new();
        for line in mounts.lines() {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next().unwrap(), words.next().unwrap());
            if !kind.starts_with("cgroup") {
                continue;
            }
            let (top, directory) = (PathBuf::from(point), PathBuf::from(point).join(name));
            if directory.exists() {
                continue;
            }
            std::fs::create_dir(&directory).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(inherited) = std::fs::read(top.join(file)) {
                    std::fs::write(directory.join(file), inherited).unwrap();
                }
            }
            directories.push(directory);
        }
        assert!(!directories.is_empty());
        Self(directories)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn the_shim_is_put_into_its_control_group(engine: &str) {
    let containerd = crate::containerd(engine);
    let name = format!("shims-of-{}", containerd.namespace());
    let group = Group::new(&name);
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    for options in [
        runc(&Options {
            shim_cgroup: format!("/{name}"),
            ..Default::default()
        }),
        cri(&format!("ShimCgroup = '{name}'\n")),
    ] {
        let stdin = options.write_to_bytes().unwrap();
        let address = containerd
            .run_start(&bundle, &stdin)
            .unwrap()
            .text()
            .unwrap();
        let shim = Shim::connect(address.trim()).unwrap();
        let pid = shim.connect_task("a").unwrap().shim_pid;
        for directory in &group.0 {
            let members = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap();
            assert_eq!(members, format!("{pid}\n"), "{}", directory.display());
        }
        // The container is in its own.
        shim.create(&bundle).unwrap();
        assert_eq!(run(&shim, "a"), 0);
        shim.delete("a").unwrap();
        finish(&containerd, &shim);
    }
}

fn a_control_group_that_is_missing_fails_the_start(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let options = cri("ShimCgroup = '/no/such/group'\n");
    let ran = containerd
        .run_start(&bundle, &options.write_to_bytes().unwrap())
        .unwrap();
    let output = String::from_utf8_lossy(&ran.output);
    assert!(!ran.status.success());
    assert!(output.contains("the cgroup /no/such/group"), "{output}");
    containerd.wait_until_clean().unwrap();
}

/// It is refused before others of its pod can find a process.
fn a_start_that_fails_takes_no_other_of_its_pod_along(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = |id: &str| {
        let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
        bundle.guest(HELLO).unwrap()
    };
    let (bad, good) = (bundle("bad"), bundle("good"));
    let missing = cri("ShimCgroup = '/no/such/group'\n");
    let missing = missing.write_to_bytes().unwrap();
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| containerd.run_start(&bad, &missing).unwrap());
            let shim = containerd.start(&good).unwrap();
            assert!(shim.connect_task("good").unwrap().shim_pid > 0);
            // It may have found the other's.
            let _ = failing.join().unwrap();
            finish(&containerd, &shim);
        });
    }
}

fn pipes_are_given_to_the_user_of_the_options(engine: &str) {
    use std::os::unix::fs::MetadataExt;
    let (containerd, mut bundle, shim) = started(engine, HELLO);
    let output = bundle.stdout().unwrap();
    let options = Options {
        io_uid: 1234,
        io_gid: 5678,
        ..Default::default()
    };
    shim.create_task(&request(&bundle, runc(&options))).unwrap();
    let owner = std::fs::metadata(output.path()).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1234, 5678));
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn limits_of_a_runtime_handler_count(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let limits = cri("[limits]\ntime_limit = 1\n");
    shim.create_task(&request(&bundle, limits.clone())).unwrap();
    assert_eq!(run(&shim, "a"), 124);
    shim.delete("a").unwrap();
    let bundle = bundle.env(&["SHIMWRIGHT_TIME_LIMIT=2"]).unwrap();
    let text = refused(
        shim.create_task(&request(&bundle, limits)),
        Code::INVALID_ARGUMENT,
    );
    assert!(
        text.contains("it is 2 in SHIMWRIGHT_TIME_LIMIT, and 1"),
        "{text}"
    );
    finish(&containerd, &shim);
}

fn a_misspelt_option_is_refused_and_named(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    for (toml, name) in [
        ("SystemdCgruop = true\n", "SystemdCgruop"),
        ("[limits]\nfiles = 99\n", "files"),
        ("[engine]\nno_such_option = 1\n", "no_such_option"),
    ] {
        let text = refused(
            shim.create_task(&request(&bundle, cri(toml))),
            Code::INVALID_ARGUMENT,
        );
        assert!(text.contains(name), "{text}");
    }
    finish(&containerd, &shim);
}
