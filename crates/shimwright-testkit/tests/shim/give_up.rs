//! Clients that give up in the middle of a call. ttrpc has no word for that: what tells is what
//! containerd says next, or that its connection ends.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shimwright_guests::IDLE;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Shim, poll};

use crate::stdio::{Stalled, waiting_launcher};
use crate::{containerd, end, exec, finish, for_each_engine, linux, refused};

for_each_engine! {
    a_create_in_a_hook_is_given_up
    a_create_in_a_mount_is_given_up
    a_create_with_a_logger_that_is_not_ready_is_given_up
    a_start_in_a_hook_is_given_up
    a_start_of_an_exec_is_given_up
    a_delete_in_a_hook_goes_on
    a_shim_that_nobody_asks_to_end_after_the_last_deletion_ends
}

/// What containerd waits for when it deletes what a client has given up (`cleanupTimeout` in its
/// `core/runtime/v2`).
const PATIENCE: Duration = Duration::from_secs(5);

/// A hook of this stage that says that it runs, in this file, and ends when the file is gone.
fn hook(stage: &str, running: &Path) -> Value {
    let file = running.display();
    let script = format!(": >{file}; while [ -e {file} ]; do sleep 0.05; done");
    json!({ stage: [{
        "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"],
    }] })
}

fn with_hook(containerd: &Containerd, stage: &str) -> (Bundle, PathBuf) {
    let running = containerd.directory().join("running");
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let hooks = hook(stage, &running);
    (bundle.spec(|spec| spec["hooks"] = hooks).unwrap(), running)
}

/// Checks that a hook has been ended: it would go on as long as its file is there.
fn check_ended(running: &Path) {
    assert!(running.exists());
    let name = running.to_string_lossy();
    let is_hook = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*name)
    };
    let processes = || fs::read_dir("/proc").unwrap().flatten();
    poll(|| (!processes().any(|process| is_hook(&process))).then_some(())).expect("its end");
}

/// Calls on a connection that lives as long as the call.
fn calling<'s, T: Send + 's>(
    scope: &'s Scope<'s, '_>,
    shim: &Shim,
    call: impl FnOnce(&Shim) -> T + Send + 's,
) -> ScopedJoinHandle<'s, T> {
    let address = shim.address().to_owned();
    scope.spawn(move || {
        let shim = Shim::connect(&address).unwrap();
        call(&shim.deadline(Duration::from_secs(300)))
    })
}

/// Has containerd delete a container that is being created, in the time that it has for that.
fn give_up(shim: &Shim) {
    let begin = Instant::now();
    refused(shim.delete("a"), Code::NOT_FOUND);
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
}

fn a_create_in_a_hook_is_given_up(engine: &str) {
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let containerd = containerd(engine);
        let (bundle, running) = with_hook(&containerd, stage);
        let shim = containerd.start(&bundle).unwrap();
        std::thread::scope(|scope| {
            let created = calling(scope, &shim, |shim| shim.create(&bundle));
            poll(|| running.exists().then_some(())).expect("a hook runs");
            give_up(&shim);
            created.join().unwrap().unwrap_err();
        });
        finish(&containerd, &shim);
        check_ended(&running);
    }
}

fn a_create_in_a_mount_is_given_up(engine: &str) {
    let containerd = containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let stalled = Stalled::mount(containerd.directory().join("stalled"));
    let bundle = bundle
        .bind(&stalled.path().join("volume"), "/volume")
        .unwrap();
    let shim = containerd.start(&bundle).unwrap();
    std::thread::scope(|scope| {
        let created = calling(scope, &shim, |shim| shim.create(&bundle));
        poll(|| waiting_launcher(&containerd)).expect("a launcher waits for the file system");
        give_up(&shim);
        created.join().unwrap().unwrap_err();
    });
    drop(stalled);
    finish(&containerd, &shim);
}

fn a_create_with_a_logger_that_is_not_ready_is_given_up(engine: &str) {
    let containerd = containerd(engine);
    let running = containerd.directory().join("running");
    let logger = containerd.directory().join("logger");
    let (file, path) = (running.display(), logger.display());
    let script = format!("#!/bin/sh\n: >{file}; while [ -e {file} ]; do sleep 0.05; done\n");
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let mut request = bundle.request();
    request.stdout = format!("binary-v2://{path}?arg={file}");
    std::thread::scope(|scope| {
        let created = calling(scope, &shim, move |shim| shim.create_task(&request));
        poll(|| running.exists().then_some(())).expect("the logger runs");
        give_up(&shim);
        created.join().unwrap().unwrap_err();
    });
    finish(&containerd, &shim);
    check_ended(&running);
}

fn a_start_in_a_hook_is_given_up(engine: &str) {
    let containerd = containerd(engine);
    let (bundle, running) = with_hook(&containerd, "poststart");
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    let impatient = Shim::connect(shim.address()).unwrap();
    let impatient = impatient.deadline(Duration::from_secs(1));
    impatient.start("a").unwrap_err();
    assert!(running.exists());
    // The container has been started, and the hook is ended.
    end(&shim, "a");
    finish(&containerd, &shim);
    check_ended(&running);
}

/// Mounts a file system that never answers in the container of this process, until what is returned
/// is dropped.
fn stall_inside(pid: u32) -> File {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let server = device.unwrap();
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--mount=/proc/{pid}/ns/mnt"));
    nsenter.args(["/program", "stall"]);
    let mounted = nsenter.stdin(server.try_clone().unwrap()).status();
    assert!(mounted.unwrap().success());
    server
}

fn a_start_of_an_exec_is_given_up(engine: &str) {
    let containerd = containerd(engine);
    let bundle = linux::bundle(&containerd, "a", "wait");
    let bundle = bundle.file("/stalled/file", b"", 0o644).unwrap();
    let container = exec::running(containerd, bundle);
    let stalled = stall_inside(container.pid);
    let stuck = container.add("e", &["/stalled/program"]);
    std::thread::scope(|scope| {
        let started = calling(scope, &container.shim, |shim| {
            shim.exec_of("a", "e").start()
        });
        poll(|| waiting_launcher(&container.containerd)).expect("a launcher waits");
        let begin = Instant::now();
        stuck.delete().unwrap();
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        started.join().unwrap().unwrap_err();
    });
    drop(stalled);
    container.end();
}

fn a_delete_in_a_hook_goes_on(engine: &str) {
    let containerd = containerd(engine);
    let (bundle, running) = with_hook(&containerd, "poststop");
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    shim.kill("a", libc::SIGKILL).unwrap();
    shim.wait("a").unwrap();
    let impatient = Shim::connect(shim.address()).unwrap();
    let impatient = impatient.deadline(Duration::from_secs(1));
    impatient.delete("a").unwrap_err();
    fs::remove_file(&running).unwrap();
    // The first call has gone on without its client; the second waits for it.
    let gone = |shim: &Shim| refused(shim.delete("a"), Code::NOT_FOUND);
    gone(&shim);
    finish(&containerd, &shim);
}

/// containerd does not ask if its client gives up while it deletes.
fn a_shim_that_nobody_asks_to_end_after_the_last_deletion_ends(engine: &str) {
    let containerd = containerd(engine);
    let [a, b] = ["a", "b"].map(|id| {
        let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
        bundle.guest(IDLE).unwrap()
    });
    let shim = containerd.start(&a).unwrap();
    assert_eq!(containerd.start(&b).unwrap().address(), shim.address());
    shim.create(&a).unwrap();
    shim.create(&b).unwrap();
    shim.delete("a").unwrap();
    shim.delete("b").unwrap();
    containerd.wait_until_clean().unwrap();
}
