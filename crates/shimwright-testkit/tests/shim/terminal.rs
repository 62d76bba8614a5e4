//! Terminals.

use serde_json::json;
use shimwright_guests::{CAT, IDLE};
use shimwright_testkit::protos::api::{ExecProcessRequest, ResizePtyRequest};
use shimwright_testkit::protos::protobuf::MessageField;
use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::protos::ttrpc::{Code, Result as TtrpcResult};
use shimwright_testkit::{Bundle, Containerd, Input, Output, Shim};

use crate::{end, exec, finish, for_each_engine, linux, refused, run};

for_each_engine! {
    a_guest_converses_through_its_terminal
    an_interrupt_typed_at_a_guest_ends_it
    a_linux_program_has_a_terminal_of_its_containers
    a_linux_program_learns_of_a_new_size
    the_last_words_on_a_terminal_are_not_lost
    an_exec_has_a_terminal_of_its_own
    a_process_without_a_terminal_has_no_size
    client_and_spec_of_a_container_must_agree_about_the_terminal
    the_request_decides_about_the_terminal_of_an_exec
}

fn resize(shim: &Shim, width: u32, height: u32) -> TtrpcResult<()> {
    let request = ResizePtyRequest {
        id: "a".to_owned(),
        width,
        height,
        ..Default::default()
    };
    shim.resize_pty(&request).map(drop)
}

/// Creates a container with a terminal: the shim, the keyboard and the screen.
fn create(containerd: &Containerd, bundle: Bundle) -> (Shim, Input, Output) {
    let mut bundle = bundle.terminal(132, 43).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let (keyboard, screen) = (bundle.stdin().unwrap(), bundle.stdout().unwrap());
    shim.create(&bundle).unwrap();
    assert!(shim.state("a").unwrap().terminal);
    (shim, keyboard, screen)
}

fn a_guest_converses_through_its_terminal(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(CAT).unwrap();
    let (shim, mut keyboard, screen) = create(&containerd, bundle);
    shim.start("a").unwrap();
    keyboard.write(b"hello\n").unwrap();
    // What is typed is echoed before it is printed.
    screen.wait_for("hello\r\nhello\r\n").unwrap();
    keyboard.write(b"\x04").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 0);
    shim.delete("a").unwrap();
    assert_eq!(
        screen.text().unwrap(),
        "hello\r\nhello\r\n<end of input>\r\n"
    );
    finish(&containerd, &shim);
}

fn an_interrupt_typed_at_a_guest_ends_it(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let (shim, mut keyboard, screen) = create(&containerd, bundle);
    shim.start("a").unwrap();
    screen.wait_for("ready").unwrap();
    keyboard.write(b"\x03").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 130);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_linux_program_has_a_terminal_of_its_containers(engine: &str) {
    let containerd = crate::containerd(engine);
    let (shim, _keyboard, screen) =
        create(&containerd, linux::bundle(&containerd, "a", "terminal"));
    assert_eq!(run(&shim, "a"), 7);
    shim.delete("a").unwrap();
    let expected = "1\r\n1\r\n1\r\n/dev/pts/0\r\nsize 132x43\r\n";
    assert_eq!(screen.text().unwrap(), expected);
    finish(&containerd, &shim);
}

fn a_linux_program_learns_of_a_new_size(engine: &str) {
    let containerd = crate::containerd(engine);
    let (shim, _keyboard, screen) = create(&containerd, linux::bundle(&containerd, "a", "resize"));
    shim.start("a").unwrap();
    screen.wait_for("ready").unwrap();
    refused(resize(&shim, 1 << 16, 1), Code::INVALID_ARGUMENT);
    resize(&shim, 81, 26).unwrap();
    screen.wait_for("size 81x26").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 7);
    refused(resize(&shim, 1, 1), Code::FAILED_PRECONDITION);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn the_last_words_on_a_terminal_are_not_lost(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = linux::bundle(&containerd, "a", "terminal");
    let mut bundle = bundle.terminal(10, 10).unwrap();
    let path = bundle.unread_stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 7);
    let reader = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
    shim.delete("a").unwrap();
    assert!(reader.join().unwrap().ends_with("size 10x10\r\n"));
    finish(&containerd, &shim);
}

fn an_exec_has_a_terminal_of_its_own(engine: &str) {
    let containerd = crate::containerd(engine);
    let guest = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let program = linux::program(&containerd);
    let guest = guest.file("/program", &program, 0o755).unwrap();
    // The container of a guest has no `devpts` in which a terminal could have a name.
    check_exec_terminals(&containerd, guest, "");
    let containerd = crate::containerd(engine);
    let program = linux::bundle(&containerd, "a", "wait");
    check_exec_terminals(&containerd, program, "/dev/pts/0\r\n");
}

fn check_exec_terminals(containerd: &Containerd, bundle: Bundle, name: &str) {
    let mut bundle = bundle.file("/cat.wasm", CAT.wasm(), 0o755).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let ready = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    ready.wait_for("ready").unwrap();

    let exec = |id: &str, args: &[&str]| {
        let process = json!({
            "args": args, "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "terminal": true, "consoleSize": { "width": 100, "height": 30 },
        });
        let path = |stream| containerd.directory().join(format!("{id}.{stream}"));
        let (keyboard, screen) = (
            Input::new(&path("in")).unwrap(),
            Output::new(&path("out")).unwrap(),
        );
        let streams = [keyboard.path(), screen.path(), String::new()];
        let exec = shim.add_exec("a", id, &process, streams).unwrap();
        // There is no terminal yet, so there is nothing to do.
        exec.resize(1, 1).unwrap();
        exec.start().unwrap();
        assert!(exec.state().unwrap().terminal);
        (exec, keyboard, screen)
    };

    let (resized, _keyboard, screen) = exec("resized", &["/program", "resize"]);
    screen.wait_for("ready").unwrap();
    resized.resize(81, 26).unwrap();
    assert_eq!(resized.wait().unwrap().exit_status, 7);
    resized.delete().unwrap();
    assert_eq!(screen.text().unwrap(), "ready\r\nsize 81x26\r\n");

    let (shown, _keyboard, screen) = exec("shown", &["/program", "terminal"]);
    assert_eq!(shown.wait().unwrap().exit_status, 7);
    shown.delete().unwrap();
    let text = screen.text().unwrap();
    assert!(
        text.starts_with(&format!("1\r\n1\r\n1\r\n{name}")),
        "{text}"
    );
    assert!(text.ends_with("size 100x30\r\n"), "{text}");

    let (typed, mut keyboard, screen) = exec("typed", &["/cat.wasm"]);
    keyboard.write(b"typed\n\x04").unwrap();
    assert_eq!(typed.wait().unwrap().exit_status, 0);
    typed.delete().unwrap();
    assert!(screen.text().unwrap().ends_with("<end of input>\r\n"));
    end(&shim, "a");
    finish(containerd, &shim);
}

fn a_process_without_a_terminal_has_no_size(engine: &str) {
    let (containerd, _bundle, shim, _output) = crate::running(engine, IDLE, "ready");
    resize(&shim, 80, 25).unwrap();
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn client_and_spec_of_a_container_must_agree_about_the_terminal(engine: &str) {
    let containerd = crate::containerd(engine);
    for (in_spec, reason) in [
        (true, "the spec has a terminal"),
        (false, "the spec has no terminal"),
    ] {
        let id = if in_spec { "a" } else { "b" };
        let mut bundle = containerd.bundle(id).unwrap().guest(IDLE).unwrap();
        if in_spec {
            bundle = bundle.terminal(80, 25).unwrap();
        }
        let shim = containerd.start(&bundle).unwrap();
        let mut request = bundle.request();
        request.terminal = !in_spec;
        let text = refused(shim.create_task(&request), Code::INVALID_ARGUMENT);
        assert!(text.contains(reason), "{text}");
        finish(&containerd, &shim);
    }
}

fn the_request_decides_about_the_terminal_of_an_exec(engine: &str) {
    let container = exec::program(engine);
    for (in_request, in_spec) in [(true, true), (true, false), (false, true), (false, false)] {
        let id = format!("{in_request}-{in_spec}");
        let mut spec = exec::process(&["/program", "terminal"]);
        spec["terminal"] = json!(in_spec);
        let output = container.output(&id);
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: spec.to_string().into_bytes(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: "a".to_owned(),
            exec_id: id.clone(),
            terminal: in_request,
            spec: MessageField::some(spec),
            stdout: output.path(),
            ..Default::default()
        };
        container.shim.exec(&request).unwrap();
        let exec = container.shim.exec_of("a", &id);
        exec.start().unwrap();
        exec.wait().unwrap();
        exec.delete().unwrap();
        let text = output.text().unwrap();
        let expected = if in_request {
            "1\r\n1\r\n1\r\n"
        } else {
            "0\n0\n0\n"
        };
        assert!(text.starts_with(expected), "{id}: {text}");
    }
    container.end();
}
