//! What the node allows guests, and what a container may take from that.

use shimwright_guests::{ENV, FILES, HELLO, IDLE, MEMORY, SPIN};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Shim};

use crate::{end, finish, for_each_engine, refused, run};

for_each_engine! {
    a_busy_guest_ends_at_its_time_limit
    an_idle_guest_ends_at_its_time_limit
    a_guest_without_a_reader_ends_at_its_time_limit
    the_number_of_files_is_limited
    linear_memory_is_limited_and_the_reason_is_told
    a_read_only_root_cannot_be_written
    a_hidden_image_leaves_the_mounts
    a_guest_without_a_network_has_a_namespace_of_its_own
    a_wider_setting_of_a_container_is_refused
    a_mistake_of_the_node_shows_at_start
    a_guest_is_given_the_variables_that_are_named
    what_an_engine_cannot_keep_is_refused_and_the_rest_does_not_hinder
}

fn bundle(engine: &str, config: &str, guest: shimwright_guests::Guest) -> (Containerd, Bundle) {
    let containerd = crate::containerd(engine);
    containerd.configure(config).unwrap();
    let bundle = containerd.bundle("a").unwrap().guest(guest).unwrap();
    (containerd, bundle)
}

fn delete(containerd: &Containerd, shim: &Shim) {
    shim.delete("a").unwrap();
    finish(containerd, shim);
}

fn check_time_limit(engine: &str, guest: shimwright_guests::Guest, by_node: bool) {
    let (config, env) = if by_node {
        ("[limits]\ntime_limit = 1\n", "A=b")
    } else {
        ("", "SHIMWRIGHT_TIME_LIMIT=1")
    };
    let (containerd, bundle) = bundle(engine, config, guest);
    let mut bundle = bundle.env(&[env]).unwrap();
    let stderr = bundle.stderr().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 124);
    let text = stderr.text().unwrap();
    assert_eq!(text, "the guest has reached its time limit\n");
    delete(&containerd, &shim);
}

fn a_busy_guest_ends_at_its_time_limit(engine: &str) {
    check_time_limit(engine, SPIN, true);
}

fn an_idle_guest_ends_at_its_time_limit(engine: &str) {
    check_time_limit(engine, IDLE, false);
}

fn a_guest_without_a_reader_ends_at_its_time_limit(engine: &str) {
    let (containerd, bundle) = bundle(engine, "", shimwright_guests::CAT);
    let mut bundle = bundle.env(&["SHIMWRIGHT_TIME_LIMIT=1"]).unwrap();
    let mut input = bundle.stdin().unwrap();
    bundle.unread_stdout().unwrap();
    let mut request = bundle.request();
    request.stderr.clone_from(&request.stdout);
    let shim = containerd.start(&bundle).unwrap();
    shim.create_task(&request).unwrap();
    shim.start("a").unwrap();
    // More than the FIFO of the outputs holds: there is no room for a last word either.
    input.write(&vec![b'x'; (64 + 64 + 2) << 10]).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 124);
    delete(&containerd, &shim);
}

fn the_number_of_files_is_limited(engine: &str) {
    let (containerd, bundle) = bundle(engine, "[limits]\nopen_files = 100\n", IDLE);
    let mut bundle = bundle.env(&["SHIMWRIGHT_OPEN_FILES=80"]).unwrap();
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<_> = files.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["80", "80"]);
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn linear_memory_is_limited_and_the_reason_is_told(engine: &str) {
    let (containerd, bundle) = bundle(engine, "[limits]\nlinear_memory = 16777216\n", MEMORY);
    let bundle = bundle.args(&["/guest.wasm", "64"]).unwrap();
    let bundle = bundle.env(&["SHIMWRIGHT_LINEAR_MEMORY=8388608"]);
    let mut bundle = bundle.unwrap();
    let (stdout, stderr) = (bundle.stdout().unwrap(), bundle.stderr().unwrap());
    let shim = containerd.start(&bundle).unwrap();
    if !crate::engine(engine).limits.contains(&"linear_memory") {
        let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
        assert!(text.contains("linear_memory"), "{text}");
        finish(&containerd, &shim);
        return;
    }
    shim.create(&bundle).unwrap();
    let status = run(&shim, "a");
    let (stdout, stderr) = (stdout.text().unwrap(), stderr.text().unwrap());
    if crate::engine(engine).has_gap("linear_memory_traps_at_its_limit") {
        assert_eq!((status, stdout.as_str()), (1, "out of memory\n"));
    } else {
        assert_eq!((status, stdout.as_str()), (134, ""));
        assert!(stderr.contains("but its limit is 8388608"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    delete(&containerd, &shim);
}

fn a_read_only_root_cannot_be_written(engine: &str) {
    let (containerd, bundle) = bundle(engine, "[limits]\nrootfs = 'read-only'\n", FILES);
    let bundle = bundle.file("/data/in.txt", b"x", 0o644).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim.create(&bundle).unwrap();
    let root = std::path::PathBuf::from(format!("/proc/{pid}/root"));
    let error = std::fs::write(root.join("new"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_ne!(run(&shim, "a"), 0);
    assert!(!bundle.image().join("data/out.txt").exists());
    delete(&containerd, &shim);
}

fn a_hidden_image_leaves_the_mounts(engine: &str) {
    let (containerd, bundle) = bundle(engine, "", FILES);
    let volume = containerd.directory().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("in.txt"), "twice\n").unwrap();
    // What the image has there is not what the guest finds.
    let bundle = bundle.file("/data/in.txt", b"image\n", 0o644).unwrap();
    let bundle = bundle.annotation("dev.shimwright.rootfs", "none").unwrap();
    let mut mounted = bundle.bind(&volume, "/data").unwrap();
    let output = mounted.stdout().unwrap();
    let shim = containerd.start(&mounted).unwrap();
    let pid = shim.create(&mounted).unwrap();
    let root = std::path::PathBuf::from(format!("/proc/{pid}/root"));
    assert!(root.join("data/in.txt").exists() && !root.join("guest.wasm").exists());
    std::fs::write(root.join("new"), "").unwrap_err();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "done\n");
    let written = std::fs::read_to_string(volume.join("out.txt")).unwrap();
    assert_eq!(written, "twice\ntwice\n");
    shim.delete("a").unwrap();
    // The working directory of the spec is there although the image is not.
    let other = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
    let other = other.annotation("dev.shimwright.rootfs", "none").unwrap();
    let other = other
        .spec(|spec| spec["process"]["cwd"] = "/some/where".into())
        .unwrap();
    shim.create(&other).unwrap();
    assert_eq!(run(&shim, "b"), 0);
    shim.delete("b").unwrap();
    finish(&containerd, &shim);
}

fn a_guest_without_a_network_has_a_namespace_of_its_own(engine: &str) {
    let (containerd, bundle) = bundle(engine, "[limits]\nnetwork = 'none'\n", IDLE);
    // As with `ctr run --net-host`: the spec leaves the guest in the node's network.
    let mut bundle = bundle
        .spec(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
        })
        .unwrap();
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(of(&pid.to_string()), of("self"));
    let routes = std::fs::read_to_string(format!("/proc/{pid}/net/route")).unwrap();
    assert!(routes.lines().count() <= 1, "{routes}");
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn a_guest_is_given_the_variables_that_are_named(engine: &str) {
    let config = "[limits]\nenvironment = ['APP_*', 'PATH']\n";
    let (containerd, bundle) = bundle(engine, config, ENV);
    let mut bundle = bundle
        .env(&[
            "APP_A=1",
            "SECRET=2",
            "APP_B=3",
            "PATH=/",
            "SHIMWRIGHT_ENVIRONMENT=APP_B,PATH",
        ])
        .unwrap();
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "APP_B=3\nPATH=/\n");
    delete(&containerd, &shim);
}

fn what_an_engine_cannot_keep_is_refused_and_the_rest_does_not_hinder(engine: &str) {
    let (containerd, bundle) = bundle(engine, "", HELLO);
    let shim = containerd.start(&bundle).unwrap();
    let set = [
        ("linear_memory", "16777216"),
        ("table_elements", "1000"),
        ("instances", "1"),
        ("stack", "262144"),
        ("outbound", "10.0.0.0/8:443,[fd00::/8]"),
        ("name_lookup", "none"),
    ];
    for (key, value) in set {
        let bundle = containerd.bundle(key).unwrap().guest(HELLO).unwrap();
        let bundle = bundle
            .annotation(&format!("dev.shimwright.{key}"), value)
            .unwrap();
        if crate::engine(engine).limits.contains(&key) {
            shim.create(&bundle).unwrap();
            assert_eq!(run(&shim, key), 0, "{key}");
            shim.delete(key).unwrap();
        } else {
            let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
            assert!(text.contains(&format!("cannot keep to {key}")), "{text}");
        }
    }
    finish(&containerd, &shim);
}

fn a_wider_setting_of_a_container_is_refused(engine: &str) {
    let (containerd, bundle) = bundle(engine, "[limits]\ntime_limit = 60\n", HELLO);
    let shim = containerd.start(&bundle).unwrap();
    for (env, reason) in [
        (
            "SHIMWRIGHT_TIME_LIMIT=61",
            "it is 61 in SHIMWRIGHT_TIME_LIMIT, and 60 on this node",
        ),
        ("SHIMWRIGHT_TIMELIMIT=1", "SHIMWRIGHT_TIMELIMIT"),
    ] {
        let bundle = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
        let bundle = bundle.env(&[env]).unwrap();
        let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
        assert!(text.contains(reason), "{text}");
    }
    finish(&containerd, &shim);
}

fn a_mistake_of_the_node_shows_at_start(engine: &str) {
    let (containerd, bundle) = bundle(engine, "[limits]\ntimelimit = 60\n", HELLO);
    let ran = containerd.run_start(&bundle, &[]).unwrap();
    let output = String::from_utf8_lossy(&ran.output);
    assert!(!ran.status.success());
    assert!(
        output.contains("config.toml: ") && output.contains("timelimit"),
        "{output}"
    );
    std::fs::remove_file(containerd.config()).unwrap();
    assert!(!containerd.run_start(&bundle, &[]).unwrap().status.success());
    assert!(containerd.snapshot().is_empty());
    // What is changed counts for the next container.
    containerd.configure("").unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    delete(&containerd, &shim);
}
