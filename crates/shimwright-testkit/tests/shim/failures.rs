//! What fails says why, in the place where it belongs, and leaves nothing.

use serde_json::json;
use shimwright_guests::{HELLO, HELLO_COMPONENT, IDLE, MISSING_IMPORT, STACK_OVERFLOW, TRAP};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Shim, Snapshot};

use crate::{end, finish, for_each_engine, refused, run, running, started};

for_each_engine! {
    a_trap_is_134_and_its_reason_is_on_stderr
    endless_recursion_is_a_trap_whatever_the_limit_of_the_stack
    a_missing_import_is_125_and_its_name_is_on_stderr
    a_missing_entrypoint_is_refused
    a_text_file_is_refused
    an_id_can_be_created_again_after_a_refusal
    an_id_in_use_already_exists
    one_of_many_concurrent_creates_of_an_id_wins
    a_running_container_cannot_be_started_again
    a_running_container_cannot_be_deleted
    a_deleted_container_is_not_found
    an_unknown_container_is_not_found
    an_unknown_exec_is_not_found
    a_control_group_in_use_is_refused_and_left_alone
    an_event_that_is_refused_holds_up_no_other
}

fn a_trap_is_134_and_its_reason_is_on_stderr(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, TRAP);
    let errors = bundle.stderr().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 134);
    let text = errors.text().unwrap();
    assert!(text.contains("unreachable"), "{text}");
    assert_eq!(shim.delete("a").unwrap().exit_status, 134);
    finish(&containerd, &shim);
}

fn endless_recursion_is_a_trap_whatever_the_limit_of_the_stack(engine: &str) {
    for most in [1 << 20, u64::MAX] {
        let (containerd, bundle, shim) = started(engine, STACK_OVERFLOW);
        let mut bundle = bundle
            .spec(|spec| {
                spec["process"]["rlimits"] =
                    json!([{ "type": "RLIMIT_STACK", "soft": most, "hard": most }]);
            })
            .unwrap();
        let errors = bundle.stderr().unwrap();
        shim.create(&bundle).unwrap();
        assert_eq!(run(&shim, "a"), 134, "{most}");
        let text = errors.text().unwrap();
        assert!(text.contains("stack"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        shim.delete("a").unwrap();
        finish(&containerd, &shim);
    }
}

fn a_missing_import_is_125_and_its_name_is_on_stderr(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, MISSING_IMPORT);
    let errors = bundle.stderr().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 125);
    let text = errors.text().unwrap();
    assert!(
        text.contains("nowhere") && text.contains("absent"),
        "{text}"
    );
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// Checks that `create` refuses, with this in its text, and leaves nothing.
fn check_refusal(containerd: &Containerd, bundle: &Bundle, shim: &Shim, reason: &str) {
    let before = containerd.snapshot();
    let text = refused(shim.create(bundle), Code::INVALID_ARGUMENT);
    assert!(text.contains(reason), "{text}");
    // Whatever has built the container may still be ending.
    let same = || (containerd.snapshot() == before).then_some(());
    let after: Option<()> = shimwright_testkit::poll(same);
    let now: Snapshot = containerd.snapshot();
    assert!(after.is_some(), "{before:#?} became {now:#?}");
    refused(shim.state("a"), Code::NOT_FOUND);
    assert_eq!(containerd.events().topics("a"), [""; 0]);
}

fn a_missing_entrypoint_is_refused(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let bundle = bundle.args(&["/absent.wasm"]).unwrap();
    check_refusal(&containerd, &bundle, &shim, "absent.wasm");
    finish(&containerd, &shim);
}

fn a_text_file_is_refused(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let bundle = bundle
        .file("/notes.wasm", b"nothing to run", 0o644)
        .unwrap();
    let bundle = bundle.args(&["/notes.wasm"]).unwrap();
    check_refusal(&containerd, &bundle, &shim, "notes.wasm");
    finish(&containerd, &shim);
}

/// Puts the first half of a module into the bundle.
fn damaged(bundle: Bundle) -> Bundle {
    let half = &HELLO.wasm()[..HELLO.wasm().len() / 2];
    bundle.file("/guest.wasm", half, 0o755).unwrap()
}

#[test]
fn wasmtime_refuses_a_damaged_module() {
    let (containerd, bundle, shim) = started("containerd-shim-wasmtime-v1", HELLO);
    check_refusal(&containerd, &damaged(bundle), &shim, "unexpected end");
    finish(&containerd, &shim);
}

/// It compiles nothing ahead of time, and so checks the module itself.
#[test]
fn wasmi_refuses_a_damaged_module() {
    let (containerd, bundle, shim) = started("containerd-shim-wasmi-v1", HELLO);
    check_refusal(&containerd, &damaged(bundle), &shim, "unexpected end");
    finish(&containerd, &shim);
}

#[test]
fn wasmi_refuses_a_component() {
    let (containerd, bundle, shim) = started("containerd-shim-wasmi-v1", HELLO_COMPONENT);
    check_refusal(&containerd, &bundle, &shim, "component");
    finish(&containerd, &shim);
}

#[test]
fn wasmtime_runs_a_component() {
    let (containerd, mut bundle, shim) = started("containerd-shim-wasmtime-v1", HELLO_COMPONENT);
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_id_can_be_created_again_after_a_refusal(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let bundle = bundle.overlay().unwrap().args(&["/absent.wasm"]).unwrap();
    check_refusal(&containerd, &bundle, &shim, "absent.wasm");
    let mut bundle = bundle.args(&["/guest.wasm"]).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_id_in_use_already_exists(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let pid = shim.create(&bundle).unwrap();
    refused(shim.create(&bundle), Code::ALREADY_EXISTS);
    assert_eq!(shim.state("a").unwrap().pid, pid);
    shim.start("a").unwrap();
    refused(shim.create(&bundle), Code::ALREADY_EXISTS);
    end(&shim, "a");
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        containerd.events().topics("a"),
        ["create", "start", "exit", "delete"]
    );
    finish(&containerd, &shim);
}

fn one_of_many_concurrent_creates_of_an_id_wins(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let creating: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| shim.create(&bundle)))
            .collect();
        creating
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for outcome in lost {
        refused(outcome, Code::ALREADY_EXISTS);
    }
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_running_container_cannot_be_started_again(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    refused(shim.start("a"), Code::FAILED_PRECONDITION);
    shim.kill("a", libc::SIGKILL).unwrap();
    shim.wait("a").unwrap();
    refused(shim.start("a"), Code::FAILED_PRECONDITION);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_running_container_cannot_be_deleted(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    refused(shim.delete("a"), Code::FAILED_PRECONDITION);
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn a_deleted_container_is_not_found(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    refused(shim.delete("a"), Code::NOT_FOUND);
    finish(&containerd, &shim);
}

fn an_unknown_container_is_not_found(engine: &str) {
    let (containerd, _, shim) = started(engine, HELLO);
    refused(shim.start("x"), Code::NOT_FOUND);
    refused(shim.state("x"), Code::NOT_FOUND);
    refused(shim.wait("x"), Code::NOT_FOUND);
    refused(shim.kill("x", libc::SIGTERM), Code::NOT_FOUND);
    refused(shim.delete("x"), Code::NOT_FOUND);
    refused(shim.pids("x"), Code::NOT_FOUND);
    refused(shim.stats("x"), Code::NOT_FOUND);
    refused(shim.close_stdin("x"), Code::NOT_FOUND);
    finish(&containerd, &shim);
}

fn an_unknown_exec_is_not_found(engine: &str) {
    use shimwright_testkit::protos::api::{Empty, KillRequest};
    let (containerd, bundle, shim) = started(engine, IDLE);
    let pid = shim.create(&bundle).unwrap();
    let request = KillRequest {
        id: "a".into(),
        exec_id: "x".into(),
        signal: 9,
        ..Default::default()
    };
    refused(shim.call::<Empty>("Kill", &request), Code::NOT_FOUND);
    assert!(crate::lives(pid));
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_control_group_in_use_is_refused_and_left_alone(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let other = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
    let path = format!("/{}/a", containerd.namespace());
    let other = other
        .spec(|spec| spec["linux"]["cgroupsPath"] = path.into())
        .unwrap();
    let second = containerd.start(&other).unwrap();
    let text = refused(second.create(&other), Code::INVALID_ARGUMENT);
    assert!(text.contains("in use"), "{text}");
    assert!(crate::lives(shim.state("a").unwrap().pid));
    second.shutdown();
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn an_event_that_is_refused_holds_up_no_other(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    containerd.events().refuse("a");
    shim.create(&bundle).unwrap();
    let other = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
    shim.create(&other).unwrap();
    assert_eq!(run(&shim, "b"), 0);
    containerd.events().wait_for_exit("b").unwrap();
    assert_eq!(containerd.events().topics("b"), ["create", "start", "exit"]);
    shim.delete("a").unwrap();
    shim.delete("b").unwrap();
    finish(&containerd, &shim);
}
