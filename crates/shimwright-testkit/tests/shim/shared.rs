//! A shim process that all containers of a node share, as the node's configuration may say.

use std::fs;

use rustix::process::Signal;
use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::{Bundle, Containerd, Output, Shim, poll};

use crate::logger::Logger;
use crate::start::start_without_client;
use crate::{containerd, end, for_each_engine, lives, run, signal};

for_each_engine! {
    containers_of_a_node_share_one_process
    a_container_that_has_been_told_the_address_keeps_the_process
    a_bundle_that_goes_without_a_word_lets_the_process_end
    a_bundle_that_goes_during_a_create_that_fails_lets_the_process_end
    a_start_whose_client_has_gone_leaves_the_process_to_others
    containers_that_come_and_go_at_once_are_all_served
    every_container_dies_with_the_shared_process
    a_replaced_executable_serves_the_containers_to_come
    the_log_goes_where_a_container_still_is
}

const SHARED: &str = "[shim]\nshare = 'node'\n";

fn sharing(engine: &str) -> Containerd {
    let containerd = containerd(engine);
    containerd.configure(SHARED).unwrap();
    containerd
}

fn bundle(containerd: &Containerd, id: &str) -> Bundle {
    containerd.bundle(id).unwrap().guest(IDLE).unwrap()
}

/// A container that runs.
fn running(containerd: &Containerd, id: &str) -> (Bundle, Shim, Output) {
    let mut bundle = bundle(containerd, id).log().unwrap();
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    shim.start(id).unwrap();
    output.wait_for("ready").unwrap();
    (bundle, shim, output)
}

/// What containerd does in the end of a container.
fn delete(shim: &Shim, bundle: Bundle) {
    end(shim, bundle.id());
    shim.shutdown_after(bundle.id());
    bundle.remove().unwrap();
}

fn containers_of_a_node_share_one_process(engine: &str) {
    let containerd = sharing(engine);
    let (first, shim, _output) = running(&containerd, "a");
    // One of a pod is no exception.
    let second = bundle(&containerd, "b").pod("p").unwrap();
    let same = containerd.start(&second).unwrap();
    assert_eq!(shim.address(), same.address());
    same.create(&second).unwrap();
    assert_eq!(containerd.snapshot().shims().len(), 1);
    delete(&shim, first);
    assert!(lives(same.connect_task("b").unwrap().task_pid));
    delete(&same, second);
    containerd.wait_until_clean().unwrap();
}

fn a_container_that_has_been_told_the_address_keeps_the_process(engine: &str) {
    let containerd = sharing(engine);
    let (first, shim, _output) = running(&containerd, "a");
    let second = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
    let told = containerd.run_start(&second, &[]).unwrap().text().unwrap();
    delete(&shim, first);
    // The answer to the call comes before the decision, so give it the time of a few more calls.
    for _ in 0..20 {
        shim.connect_task("b").unwrap();
    }
    let same = Shim::connect(told.trim()).unwrap();
    same.create(&second).unwrap();
    assert_eq!(run(&same, "b"), 0);
    same.delete("b").unwrap();
    same.shutdown_after("b");
    containerd.wait_until_clean().unwrap();
}

fn a_bundle_that_goes_without_a_word_lets_the_process_end(engine: &str) {
    let containerd = sharing(engine);
    let (first, shim, _output) = running(&containerd, "a");
    let second = bundle(&containerd, "b");
    containerd.run_start(&second, &[]).unwrap().text().unwrap();
    delete(&shim, first);
    assert_eq!(containerd.snapshot().shims().len(), 1);
    second.remove().unwrap();
    containerd.wait_until_clean().unwrap();
}

fn a_bundle_that_goes_during_a_create_that_fails_lets_the_process_end(engine: &str) {
    let containerd = sharing(engine);
    let (first, shim, _output) = running(&containerd, "a");
    let second = bundle(&containerd, "b").args(&["/missing.wasm"]).unwrap();
    containerd.run_start(&second, &[]).unwrap().text().unwrap();
    delete(&shim, first);
    let logger = Logger::waiting(&containerd);
    std::thread::scope(|scope| {
        let created = scope.spawn(|| shim.create_task(&logger.request(&second)));
        logger.wait();
        // It is this file that says that the container needs the process.
        fs::remove_file(second.directory().join("address")).unwrap();
        // Give the shim the time of a few calls to notice.
        for _ in 0..20 {
            shim.connect_task("b").unwrap();
        }
        logger.go();
        created.join().unwrap().unwrap_err();
    });
    containerd.wait_until_clean().unwrap();
}

fn a_start_whose_client_has_gone_leaves_the_process_to_others(engine: &str) {
    let containerd = sharing(engine);
    // A client may also try the same container again.
    for second in ["b", "a"] {
        let first = bundle(&containerd, "a");
        let second = bundle(&containerd, second);
        let start = || containerd.run_start(&second, &[]).unwrap().text().unwrap();
        let address = start_without_client(&containerd, &first, start);
        let shim = Shim::connect(address.trim()).unwrap();
        shim.create(&second).unwrap();
        delete(&shim, second);
        if first.directory().exists() {
            first.remove().unwrap();
        }
        containerd.wait_until_clean().unwrap();
    }
}

fn containers_that_come_and_go_at_once_are_all_served(engine: &str) {
    let containerd = sharing(engine);
    let client = |client: usize| {
        for round in 0..10 {
            let id = format!("c{client}-{round}");
            let bundle = containerd.bundle(&id).unwrap().guest(HELLO).unwrap();
            let shim = containerd.start(&bundle).unwrap();
            shim.create(&bundle).unwrap();
            assert_eq!(run(&shim, &id), 0);
            shim.delete(&id).unwrap();
            shim.shutdown_after(&id);
            bundle.remove().unwrap();
        }
    };
    std::thread::scope(|scope| {
        for index in 0..3 {
            scope.spawn(move || client(index));
        }
    });
    containerd.wait_until_clean().unwrap();
}

fn every_container_dies_with_the_shared_process(engine: &str) {
    let containerd = sharing(engine);
    let (first, shim, _outputs) = running(&containerd, "a");
    let (second, _, _output) = running(&containerd, "b");
    let [a, b] = ["a", "b"].map(|id| shim.connect_task(id).unwrap());
    signal(a.shim_pid, Signal::KILL);
    poll(|| shim.connect_task("a").err()).expect("the connection is lost");
    for (bundle, answer) in [(first, a), (second, b)] {
        let deleted = containerd.delete(bundle.directory(), bundle.id()).unwrap();
        assert_eq!((deleted.exit_status, deleted.pid), (137, answer.task_pid));
        assert!(!lives(answer.task_pid));
        bundle.remove().unwrap();
    }
    containerd.wait_until_clean().unwrap();
    let (again, shim, _output) = running(&containerd, "a");
    delete(&shim, again);
    containerd.wait_until_clean().unwrap();
}

fn a_replaced_executable_serves_the_containers_to_come(engine: &str) {
    let original = containerd(engine);
    let prefix = original.directory();
    let installed = prefix.join("bin").join(engine);
    fs::create_dir(prefix.join("bin")).unwrap();
    // Where the engine's libraries are, if it has any.
    let libraries = original.shim().with_file_name("../lib");
    std::os::unix::fs::symlink(libraries, prefix.join("lib")).unwrap();
    let install = || {
        let new = installed.with_extension("new");
        fs::copy(original.shim(), &new).unwrap();
        fs::rename(new, &installed).unwrap();
    };
    install();
    let containerd = Containerd::with_shim(&installed).unwrap();
    containerd.configure(SHARED).unwrap();
    let (first, old, _output) = running(&containerd, "a");
    install();
    let (second, new, _other) = running(&containerd, "b");
    assert_ne!(old.address(), new.address());
    let pids = [("a", &old), ("b", &new)].map(|(id, shim)| shim.connect_task(id).unwrap().shim_pid);
    assert_ne!(pids[0], pids[1]);
    delete(&old, first);
    poll(|| (!lives(pids[0])).then_some(())).expect("the old process ends");
    assert!(lives(pids[1]));
    delete(&new, second);
    containerd.wait_until_clean().unwrap();
}

fn the_log_goes_where_a_container_still_is(engine: &str) {
    let containerd = sharing(engine);
    let (first, shim, _output) = running(&containerd, "a");
    let second = bundle(&containerd, "b");
    let log = Output::new(&second.directory().join("log")).unwrap();
    containerd.start(&second).unwrap();
    shim.create(&second).unwrap();
    let pid = shim.connect_task("b").unwrap().shim_pid;
    delete(&shim, first);
    // Has the shim write its state.
    signal(pid, Signal::USR1);
    log.wait_for("state").unwrap();
    delete(&shim, second);
    containerd.wait_until_clean().unwrap();
}
