//! Hooks: programs of the node, and of the image, in the stages of a container's life.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::{Value, json};
use shimwright_guests::HELLO;
use shimwright_testkit::{Bundle, poll};

use crate::{containerd, finish, for_each_engine, linux, run};

for_each_engine! {
    hooks_need_not_read_the_state
    a_failing_hook_after_the_end_is_a_warning
    programs_and_hooks_end_on_a_broken_pipe
}

/// The stages whose hooks run on the node.
const OF_THE_NODE: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "poststart",
    "poststop",
];

/// Has the state that hooks are given exceed what a pipe holds: a hook that does not read it breaks
/// the pipe in every run.
fn with_large_state(bundle: Bundle) -> Bundle {
    bundle.annotation("large", &"x".repeat(128 << 10)).unwrap()
}

fn with_hooks(bundle: Bundle, hooks: Value) -> Bundle {
    bundle.spec(|spec| spec["hooks"] = hooks).unwrap()
}

/// A hook that does this in a shell.
fn shell(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

fn hooks_need_not_read_the_state(engine: &str) {
    let containerd = containerd(engine);
    let mut hooks =
        json!({ "startContainer": [{ "path": "/program", "args": ["hook", "nothing"] }] });
    for stage in OF_THE_NODE {
        let ran = containerd.directory().join(stage);
        hooks[stage] = json!([shell(&format!("exec <&-; : >{}", ran.display()))]);
    }
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let program = linux::program(&containerd);
    let bundle = bundle.file("/program", &program, 0o755).unwrap();
    let mut bundle = with_hooks(with_large_state(bundle), hooks);
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    for stage in OF_THE_NODE {
        assert!(containerd.directory().join(stage).exists(), "{stage}");
    }
    finish(&containerd, &shim);
}

fn a_failing_hook_after_the_end_is_a_warning(engine: &str) {
    let containerd = containerd(engine);
    let ran = containerd.directory().join("ran");
    let hooks = json!({ "poststop": [
        shell("exec <&-; exit 1"),
        { "path": "/no/such/hook" },
        shell("kill -9 $$"),
        shell(&format!(": >{}", ran.display())),
    ] });
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let bundle = with_hooks(with_large_state(bundle), hooks).log().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(shim.delete("a").unwrap().exit_status, 0);
    assert!(ran.exists());
    let mut log = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(bundle.directory().join("log"))
        .unwrap();
    let mut text = Vec::new();
    let failures = || {
        let _ = log.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let warnings = text.lines().filter(|line| line.contains("hook failed"));
        (warnings.count() == 3).then_some(())
    };
    poll(failures).expect("each failure is in the log");
    finish(&containerd, &shim);
}

/// The launcher handles `SIGPIPE`, which programs must not inherit.
fn programs_and_hooks_end_on_a_broken_pipe(engine: &str) {
    let containerd = containerd(engine);
    let found = |stage: &str| containerd.directory().join(stage);
    let show = |stage| {
        shell(&format!(
            "grep ^Sig /proc/self/status >{}",
            found(stage).display()
        ))
    };
    let hooks = json!({ "createRuntime": [show("before")], "poststop": [show("after")] });
    let bundle = linux::bundle(&containerd, "a", "pipe");
    let mut bundle = with_hooks(bundle, hooks);
    let output = bundle.stdout().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 7);
    shim.delete("a").unwrap();
    assert_eq!(output.text().unwrap(), "default\n");
    for stage in ["before", "after"] {
        let text = fs::read_to_string(found(stage)).unwrap();
        for set in ["SigBlk", "SigIgn", "SigCgt"] {
            let line = text.lines().find(|line| line.starts_with(set)).unwrap();
            let mask = line.rsplit(':').next().unwrap().trim();
            let mask = u64::from_str_radix(mask, 16).unwrap();
            assert_eq!(mask >> (libc::SIGPIPE - 1) & 1, 0, "{stage}: {text}");
        }
    }
    finish(&containerd, &shim);
}
