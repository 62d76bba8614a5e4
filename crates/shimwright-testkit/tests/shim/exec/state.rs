//! The life of an exec, from `Exec` to `Delete`.

use serde_json::json;
use shimwright_guests::IDLE;
use shimwright_testkit::Version;
use shimwright_testkit::protos::api::{PidsRequest, PidsResponse};
use shimwright_testkit::protos::protobuf::Message;
use shimwright_testkit::protos::shim::oci::ProcessDetails;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::protos::types::task::Status;

use super::{guest, process, running};
use crate::{finish, for_each_engine, lives, refused, time};

for_each_engine! {
    an_exec_is_known_from_exec_to_delete
    an_exec_is_started_once_and_deleted_when_it_has_ended
    an_exec_that_cannot_be_started_says_why_and_harms_nothing
    a_bad_id_of_an_exec_is_named_as_such
    an_exec_needs_a_container_that_lives
    the_exit_of_a_container_is_the_last_of_all
    pids_say_which_process_is_an_execs
}

fn an_exec_is_known_from_exec_to_delete(engine: &str) {
    let container = guest(engine);
    let exec = container.add("e", &["/idle.wasm"]);
    let check = |status, pid| {
        let state = exec.state().unwrap();
        assert_eq!(state.status.enum_value(), Ok(status));
        assert_eq!((state.id.as_str(), state.exec_id.as_str()), ("e", "e"));
        assert_eq!(state.pid, pid);
        assert_eq!(state.bundle, container.bundle.directory().to_string_lossy());
        state
    };
    check(Status::CREATED, 0);
    refused(exec.kill(libc::SIGTERM), Code::FAILED_PRECONDITION);
    let pid = exec.start().unwrap();
    check(Status::RUNNING, pid);
    exec.kill(libc::SIGKILL).unwrap();
    let waited = exec.wait().unwrap();
    let state = check(Status::STOPPED, pid);
    let deleted = exec.delete().unwrap();
    for (status, at) in [
        (state.exit_status, &state.exited_at),
        (deleted.exit_status, &deleted.exited_at),
    ] {
        assert_eq!((status, time(at)), (137, time(&waited.exited_at)));
    }
    refused(exec.state(), Code::NOT_FOUND);
    refused(exec.delete(), Code::NOT_FOUND);
    container.end();
    let topics = container.containerd.events().topics("a");
    assert_eq!(
        topics,
        [
            "create",
            "start",
            "exec-added",
            "exec-started",
            "exit",
            "exit",
            "delete"
        ]
    );
    assert_eq!(container.exits(), ["e", "a"]);
}

fn an_exec_is_started_once_and_deleted_when_it_has_ended(engine: &str) {
    let container = guest(engine);
    for version in [Version::V2, Version::V3] {
        let shim = container.shim.version(version);
        let none = || Default::default();
        let spec = process(&["/idle.wasm"]);
        let exec = shim.add_exec("a", "e", &spec, none()).unwrap();
        refused(shim.add_exec("a", "e", &spec, none()), Code::ALREADY_EXISTS);
        exec.start().unwrap();
        refused(exec.start(), Code::FAILED_PRECONDITION);
        refused(exec.delete(), Code::FAILED_PRECONDITION);
        exec.kill(libc::SIGKILL).unwrap();
        exec.wait().unwrap();
        refused(exec.start(), Code::FAILED_PRECONDITION);
        exec.delete().unwrap();
        // One that was never started can be deleted too.
        let unused = shim.add_exec("a", "e", &spec, none()).unwrap();
        let deleted = unused.delete().unwrap();
        assert_eq!((deleted.pid, deleted.exit_status), (0, 0));
        refused(
            shim.add_exec("a", "", &spec, none()),
            Code::INVALID_ARGUMENT,
        );
        refused(shim.add_exec("x", "e", &spec, none()), Code::NOT_FOUND);
        refused(shim.exec_of("a", "x").start(), Code::NOT_FOUND);
        refused(shim.exec_of("a", "x").wait(), Code::NOT_FOUND);
    }
    container.end();
}

fn an_exec_that_cannot_be_started_says_why_and_harms_nothing(engine: &str) {
    let container = guest(engine);
    let none = || Default::default();
    let garbage = container
        .shim
        .add_exec("a", "x", &json!({ "args": 1 }), none());
    let text = refused(garbage, Code::INVALID_ARGUMENT);
    assert!(text.contains("the process of the exec"), "{text}");
    for (id, spec, reason) in [
        (
            "missing",
            process(&["/nothing"]),
            "no such file or directory",
        ),
        ("text", process(&["/text"]), "neither a WebAssembly binary"),
        ("broken", process(&["/broken"]), "cannot execute /broken"),
    ] {
        let exec = container.shim.add_exec("a", id, &spec, none()).unwrap();
        let text = refused(exec.start(), Code::INVALID_ARGUMENT);
        assert!(text.contains(reason), "{text}");
        let state = exec.state().unwrap();
        assert_eq!(state.status.enum_value(), Ok(Status::STOPPED));
        assert_eq!(exec.wait().unwrap().exit_status, 127);
        exec.delete().unwrap();
    }
    assert!(lives(container.pid));
    container.end();
    assert_eq!(container.exits(), ["a"]);
}

fn a_bad_id_of_an_exec_is_named_as_such(engine: &str) {
    let container = guest(engine);
    let spec = process(&["/hello.wasm"]);
    let added = container
        .shim
        .add_exec("a", "../b", &spec, Default::default());
    let text = refused(added, Code::INVALID_ARGUMENT);
    assert_eq!(text, "invalid exec id \"../b\"");
    container.end();
}

fn an_exec_needs_a_container_that_lives(engine: &str) {
    let container = guest(engine);
    let spec = process(&["/hello.wasm"]);
    let added = container.add("e", &["/hello.wasm"]);
    container.shim.kill("a", libc::SIGKILL).unwrap();
    container.shim.wait("a").unwrap();
    refused(added.start(), Code::FAILED_PRECONDITION);
    let late = container
        .shim
        .add_exec("a", "late", &spec, Default::default());
    refused(late, Code::FAILED_PRECONDITION);
    container.shim.delete("a").unwrap();
    refused(added.wait(), Code::NOT_FOUND);
    finish(&container.containerd, &container.shim);
}

fn the_exit_of_a_container_is_the_last_of_all(engine: &str) {
    // Also without a pid namespace, whose end is that of everything in it.
    for own_pids in [true, false] {
        let containerd = crate::containerd(engine);
        let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
        let bundle = bundle.spec(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| own_pids || namespace["type"] != "pid");
        });
        let container = running(containerd, bundle.unwrap());
        let execs = ["e", "f", "g"].map(|id| container.add(id, &["/idle.wasm"]));
        for exec in &execs {
            exec.start().unwrap();
        }
        container.shim.kill("a", libc::SIGKILL).unwrap();
        container.shim.wait("a").unwrap();
        for exec in &execs {
            assert_eq!(exec.state().unwrap().exit_status, 137);
        }
        container.shim.delete("a").unwrap();
        finish(&container.containerd, &container.shim);
        let mut exits = container.exits();
        assert_eq!(exits.pop().unwrap(), "a");
        exits.sort();
        assert_eq!(exits, ["e", "f", "g"]);
    }
}

fn pids_say_which_process_is_an_execs(engine: &str) {
    let container = guest(engine);
    let pid = container.add("e", &["/idle.wasm"]).start().unwrap();
    let request = PidsRequest {
        id: "a".to_owned(),
        ..Default::default()
    };
    let pids: PidsResponse = container.shim.call("Pids", &request).unwrap();
    let mut found: Vec<_> = pids
        .processes
        .iter()
        .map(|process| {
            let details = process.info.as_ref().map(|info| {
                assert_eq!(info.type_url, "containerd.runc.v1.ProcessDetails");
                ProcessDetails::parse_from_bytes(&info.value)
                    .unwrap()
                    .exec_id
            });
            (process.pid, details)
        })
        .collect();
    found.sort_by_key(|(_, details)| details.is_some());
    assert_eq!(found, [(container.pid, None), (pid, Some("e".to_owned()))]);
    container.end();
}
