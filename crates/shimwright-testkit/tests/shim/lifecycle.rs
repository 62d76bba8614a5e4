//! A container's life, from `create` to `delete`.

use shimwright_guests::{ENV, EXIT_CODE, FILES, HELLO, IDLE};
use shimwright_testkit::events::Content;
use shimwright_testkit::protos::api::CreateTaskRequest;
use shimwright_testkit::protos::types::mount::Mount;
use shimwright_testkit::protos::types::task::Status;
use shimwright_testkit::{Bundle, Containerd, Shim, Version};

use crate::{end, finish, for_each_engine, linux, lives, run, started, time};

for_each_engine! {
    create_answers_the_pid_of_the_first_process
    the_state_follows_the_container
    the_exit_code_is_the_guests
    a_high_exit_code_is_the_guests
    events_come_in_order_and_agree_with_the_answers
    version_2_of_the_service_does_the_same
    the_output_is_the_guests
    streams_are_optional
    arguments_and_environment_are_those_of_the_spec
    an_overlay_is_mounted_and_unmounted
    a_failed_mount_undoes_those_before_it
    a_mount_below_the_root_ends_with_its_container
    a_bind_mount_is_the_guests_directory
    a_container_that_was_never_started_can_be_deleted
    wait_before_start_answers_the_exit
}

fn create_answers_the_pid_of_the_first_process(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let pid = shim.create(&bundle).unwrap();
    let answer = shim.connect_task("a").unwrap();
    assert_eq!(answer.task_pid, pid);
    assert_ne!(answer.shim_pid, pid);
    assert!(lives(pid) && lives(answer.shim_pid));
    assert_eq!(shim.start("a").unwrap(), pid);
    end(&shim, "a");
    assert!(!lives(pid));
    finish(&containerd, &shim);
}

fn the_state_follows_the_container(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, IDLE);
    let output = bundle.stdout().unwrap();
    let pid = shim.create(&bundle).unwrap();
    let check = |status| {
        let state = shim.state("a").unwrap();
        assert_eq!(state.status.enum_value(), Ok(status));
        assert_eq!((state.id.as_str(), state.pid), ("a", pid));
        assert_eq!(state.stdout, output.path());
        assert_eq!(state.bundle, bundle.directory().to_string_lossy());
        state
    };
    assert!(check(Status::CREATED).exited_at.is_none());
    shim.start("a").unwrap();
    assert!(check(Status::RUNNING).exited_at.is_none());
    shim.kill("a", libc::SIGKILL).unwrap();
    let waited = shim.wait("a").unwrap();
    let state = check(Status::STOPPED);
    assert_eq!(
        (state.exit_status, time(&state.exited_at)),
        (137, time(&waited.exited_at))
    );
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn the_exit_code_is_the_guests(engine: &str) {
    check_codes(engine, [0, 3, 125].map(|code| (code, code)));
}

fn a_high_exit_code_is_the_guests(engine: &str) {
    let codes = [126, 134, 255];
    let traps = crate::engine(engine).has_gap("exit_code_wraps");
    check_codes(
        engine,
        codes.map(|code| (code, if traps { 134 } else { code })),
    );
}

/// Runs guests that exit with the first of each two, which has to be told as the second.
fn check_codes(engine: &str, codes: [(u32, u32); 3]) {
    let (containerd, bundle, shim) = started(engine, EXIT_CODE);
    let mut bundle = bundle.pod("p").unwrap();
    for (code, status) in codes {
        bundle = bundle.args(&["/guest.wasm", &code.to_string()]).unwrap();
        shim.create(&bundle).unwrap();
        assert_eq!(run(&shim, "a"), status);
        assert_eq!(shim.delete("a").unwrap().exit_status, status);
    }
    finish(&containerd, &shim);
}

fn events_come_in_order_and_agree_with_the_answers(engine: &str) {
    let (containerd, bundle, shim) = started(engine, EXIT_CODE);
    check_whole_life(&containerd, &bundle, &shim);
    finish(&containerd, &shim);
}

fn version_2_of_the_service_does_the_same(engine: &str) {
    let (containerd, bundle, shim) = started(engine, EXIT_CODE);
    check_whole_life(&containerd, &bundle, &shim.version(Version::V2));
    finish(&containerd, &shim);
}

fn check_whole_life(containerd: &Containerd, bundle: &Bundle, shim: &Shim) {
    let pid = shim.create(bundle).unwrap();
    shim.start("a").unwrap();
    let waited = shim.wait("a").unwrap();
    let deleted = shim.delete("a").unwrap();
    containerd.events().wait_for_topic("a", "delete").unwrap();
    let events = containerd.events().of("a");
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "exit", "delete"]
    );
    for event in &events {
        assert_eq!(event.namespace, containerd.namespace());
        assert!(event.dated);
        assert!(
            event.type_url.starts_with("containerd.events.Task"),
            "{}",
            event.type_url
        );
    }
    let [
        Content::Create(create),
        Content::Start(start),
        Content::Exit(exit),
        Content::Delete(delete),
    ] = [0, 1, 2, 3].map(|index: usize| events[index].content.clone())
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        [create.pid, start.pid, exit.pid, delete.pid, deleted.pid],
        [pid; 5]
    );
    assert_eq!(create.bundle, bundle.directory().to_string_lossy());
    assert_eq!(exit.id, "a");
    let status = [
        waited.exit_status,
        exit.exit_status,
        delete.exit_status,
        deleted.exit_status,
    ];
    assert_eq!(status, [0; 4]);
    let at = [
        &waited.exited_at,
        &exit.exited_at,
        &delete.exited_at,
        &deleted.exited_at,
    ]
    .map(time);
    assert_eq!(at, [at[0]; 4]);
}

fn the_output_is_the_guests(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, HELLO);
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn streams_are_optional(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn arguments_and_environment_are_those_of_the_spec(engine: &str) {
    let (containerd, bundle, shim) = started(engine, ENV);
    let mut bundle = bundle.env(&["ONE=1", "TWO=2 and more"]).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "ONE=1\nTWO=2 and more\nHOME=/\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_overlay_is_mounted_and_unmounted(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let mut bundle = bundle.overlay().unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    shim.delete("a").unwrap();
    assert!(containerd.snapshot().mounts.is_empty());
    finish(&containerd, &shim);
}

/// A mount as a client may ask for one below the root of a container.
fn mount_below(kind: &str, target: &str) -> Mount {
    Mount {
        type_: kind.to_owned(),
        source: kind.to_owned(),
        target: target.to_owned(),
        ..Default::default()
    }
}

/// A request to create a container with these mounts, below a root that is there already.
fn request_with(bundle: &Bundle, mounts: Vec<Mount>) -> CreateTaskRequest {
    let below = bundle.directory().join("rootfs/below");
    std::fs::create_dir_all(below).unwrap();
    CreateTaskRequest {
        rootfs: mounts,
        ..bundle.request()
    }
}

fn a_failed_mount_undoes_those_before_it(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let mounts = vec![
        mount_below("tmpfs", "/below"),
        mount_below("no such", "/other"),
    ];
    let text = shim
        .create_task(&request_with(&bundle, mounts))
        .unwrap_err()
        .to_string();
    assert!(text.contains("mount no such on"), "{text}");
    assert!(containerd.snapshot().mounts.is_empty());
    finish(&containerd, &shim);
}

fn a_mount_below_the_root_ends_with_its_container(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = linux::bundle(&containerd, "a", "nothing");
    let shim = containerd.start(&bundle).unwrap();
    let mounts = vec![mount_below("tmpfs", "/below")];
    shim.create_task(&request_with(&bundle, mounts)).unwrap();
    assert_eq!(containerd.snapshot().mounts.len(), 1);
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    assert!(containerd.snapshot().mounts.is_empty());
    finish(&containerd, &shim);
}

fn a_bind_mount_is_the_guests_directory(engine: &str) {
    let (containerd, bundle, shim) = started(engine, FILES);
    let data = containerd.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("in.txt"), "twice ").unwrap();
    let mut bundle = bundle
        .bind(&data, "/data")
        .unwrap()
        .readonly_root()
        .unwrap();
    std::fs::create_dir(bundle.image().join("data")).unwrap();
    let output = bundle.stdout().unwrap();
    let errors = bundle.stderr().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0, "{}", errors.text().unwrap());
    assert_eq!(output.text().unwrap(), "done\n");
    assert_eq!(
        std::fs::read_to_string(data.join("out.txt")).unwrap(),
        "twice twice "
    );
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_container_that_was_never_started_can_be_deleted(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let pid = shim.create(&bundle).unwrap();
    let deleted = shim.delete("a").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "exit", "delete"]
    );
    let exit = containerd.events().wait_for_exit("a").unwrap();
    assert_eq!(time(&exit.exited_at), time(&deleted.exited_at));
    finish(&containerd, &shim);
}

fn wait_before_start_answers_the_exit(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    shim.create(&bundle).unwrap();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| shim.wait("a").unwrap()))
            .collect();
        shim.start("a").unwrap();
        for thread in waiting {
            assert_eq!(thread.join().unwrap().exit_status, 0);
        }
    });
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}
