//! The calls of the Task service that change nothing, and those that there are not.

use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::protos::api::CheckpointTaskRequest;
use shimwright_testkit::protos::cgroups::metrics::Metrics as MetricsV1;
use shimwright_testkit::protos::cgroups_v2::metrics::Metrics as MetricsV2;
use shimwright_testkit::protos::protobuf::Message;
use shimwright_testkit::protos::ttrpc::{self, Code, Result};
use shimwright_testkit::{Bundle, Containerd, Shim, Version, poll};

use crate::logger::Logger;
use crate::{end, finish, for_each_engine, lives, refused, run, running, started};

for_each_engine! {
    pids_contain_the_first_process_until_delete
    connect_never_fails
    stats_are_those_of_the_hosts_hierarchy
    what_is_unsupported_is_unimplemented
    shutdown_with_tasks_does_nothing
    shutdown_without_tasks_ends_the_shim_and_removes_its_socket
    the_sandbox_api_and_its_streams_are_unimplemented
    shutdown_during_a_create_that_fails_ends_the_shim
    shutdown_during_a_create_that_succeeds_does_nothing
    a_pod_outlives_its_first_container
    sigterm_ends_the_shim_and_its_tasks
}

fn pids_contain_the_first_process_until_delete(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let pid = shim.create(&bundle).unwrap();
    assert!(shim.pids("a").unwrap().contains(&pid));
    shim.start("a").unwrap();
    assert!(shim.pids("a").unwrap().contains(&pid));
    shim.kill("a", libc::SIGKILL).unwrap();
    shim.wait("a").unwrap();
    assert_eq!(shim.pids("a").unwrap(), [pid]);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn connect_never_fails(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let unknown = shim.connect_task("x").unwrap();
    assert_eq!(unknown.task_pid, 0);
    let shim_pid = i32::try_from(unknown.shim_pid).unwrap();
    assert_eq!(containerd.snapshot().shims(), [shim_pid]);
    let pid = shim.create(&bundle).unwrap();
    assert_eq!(shim.connect_task("a").unwrap().task_pid, pid);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn stats_are_those_of_the_hosts_hierarchy(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let any = shim.stats("a").unwrap().stats.unwrap();
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory = if unified {
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        MetricsV2::parse_from_bytes(&any.value)
            .unwrap()
            .memory
            .usage
    } else {
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        MetricsV1::parse_from_bytes(&any.value)
            .unwrap()
            .memory
            .usage
            .usage
    };
    assert!(memory > 0);
    shim.kill("a", libc::SIGKILL).unwrap();
    shim.wait("a").unwrap();
    // CRI asks whether the memory was exhausted only now.
    shim.stats("a").unwrap();
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn what_is_unsupported_is_unimplemented(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    for version in [Version::V2, Version::V3] {
        check_unsupported(&shim.version(version));
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn check_unsupported(shim: &Shim) {
    let id = String::from("a");
    let checkpoint = CheckpointTaskRequest {
        id,
        ..Default::default()
    };
    refused(shim.checkpoint(&checkpoint), Code::UNIMPLEMENTED);
}

fn shutdown_with_tasks_does_nothing(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.shutdown();
    let answer = shim.connect_task("a").unwrap();
    assert!(lives(answer.shim_pid) && lives(answer.task_pid));
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn shutdown_without_tasks_ends_the_shim_and_removes_its_socket(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    let pid = shim.connect_task("a").unwrap().shim_pid;
    shim.shutdown();
    poll(|| (!lives(pid)).then_some(())).expect("the shim ends");
    assert!(!std::path::Path::new(shim.address().trim_start_matches("unix://")).exists());
    finish(&containerd, &shim);
}

/// Asks a shim to end while it creates this container, and returns the outcome of the create.
fn shutdown_during_create(containerd: &Containerd, bundle: &Bundle, shim: &Shim) -> Result<u32> {
    let logger = Logger::waiting(containerd);
    std::thread::scope(|scope| {
        let created = scope.spawn(|| shim.create_task(&logger.request(bundle)));
        logger.wait();
        // About another container: this one's create would be given up.
        shim.shutdown_after("b");
        logger.go();
        created.join().unwrap().map(|created| created.pid)
    })
}

fn shutdown_during_a_create_that_fails_ends_the_shim(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let bundle = bundle.args(&["/missing.wasm"]).unwrap();
    refused(
        shutdown_during_create(&containerd, &bundle, &shim),
        Code::INVALID_ARGUMENT,
    );
    containerd.wait_until_clean().unwrap();
}

fn shutdown_during_a_create_that_succeeds_does_nothing(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    shutdown_during_create(&containerd, &bundle, &shim).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    // Nor does what failed later end it, as nobody has asked since.
    let failing = containerd.bundle("c").unwrap().args(&["/missing.wasm"]);
    refused(shim.create(&failing.unwrap()), Code::INVALID_ARGUMENT);
    assert!(shim.connect_task("a").unwrap().shim_pid > 0);
    finish(&containerd, &shim);
}

fn a_pod_outlives_its_first_container(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = |id| containerd.bundle(id).unwrap().pod("p").unwrap();
    let sandbox = bundle("sandbox").guest(IDLE).unwrap();
    let shim = containerd.start(&sandbox).unwrap();
    shim.create(&sandbox).unwrap();
    shim.start("sandbox").unwrap();
    end(&shim, "sandbox");
    // containerd removes the bundle, which is also the shim's working directory.
    std::fs::remove_dir_all(sandbox.directory()).unwrap();
    for id in ["b", "c"] {
        let mut bundle = bundle(id).guest(HELLO).unwrap().overlay().unwrap();
        let output = bundle.stdout().unwrap();
        assert_eq!(containerd.start(&bundle).unwrap().address(), shim.address());
        shim.create(&bundle).unwrap();
        assert_eq!(run(&shim, id), 0);
        assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
        shim.delete(id).unwrap();
    }
    finish(&containerd, &shim);
}

fn sigterm_ends_the_shim_and_its_tasks(engine: &str) {
    let (containerd, bundle, shim, _output) = running(engine, IDLE, "ready");
    let answer = shim.connect_task("a").unwrap();
    crate::signal(answer.shim_pid, rustix::process::Signal::TERM);
    assert_eq!(
        containerd.events().wait_for_exit("a").unwrap().exit_status,
        137
    );
    poll(|| (!lives(answer.shim_pid)).then_some(())).expect("the shim ends");
    assert!(!lives(answer.task_pid));
    containerd.delete(bundle.directory(), "a").unwrap();
    containerd.wait_until_clean().unwrap();
}

fn the_sandbox_api_and_its_streams_are_unimplemented(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let client = ttrpc::Client::connect(shim.address()).unwrap();
    for method in ["CreateSandbox", "SandboxMetrics"] {
        let answer = client.request(ttrpc::Request {
            service: "containerd.runtime.sandbox.v1.Sandbox".to_owned(),
            method: method.to_owned(),
            timeout_nano: 10_000_000_000,
            ..Default::default()
        });
        let text = refused(answer, Code::UNIMPLEMENTED);
        assert!(text.contains("podsandbox"), "{text}");
    }
    let mut request = bundle.request();
    request.stdout = format!("ttrpc+{}?streaming_id=a-stdout", shim.address());
    let text = refused(shim.create_task(&request), Code::UNIMPLEMENTED);
    assert!(text.contains("io_type"), "{text}");
    drop(client);
    finish(&containerd, &shim);
}
