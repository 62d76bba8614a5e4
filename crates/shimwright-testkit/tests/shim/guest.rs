//! What a guest is given by the spec, and is told by the kernel, whatever its engine.

use serde_json::json;
use shimwright_guests::{HELLO, IDLE, INVALID_BODY, LENGTHS, READ_ONLY};
use shimwright_testkit::protos::ttrpc::Code;

use crate::{end, finish, for_each_engine, refused, run, started};

for_each_engine! {
    a_nul_in_a_string_is_refused_with_its_field
    long_strings_reach_a_guest_and_not_the_command_line
    a_module_that_is_not_valid_is_refused
    a_read_only_file_system_is_told_as_such
}

fn a_nul_in_a_string_is_refused_with_its_field(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    for (field, strings) in [
        ("env", json!(["A=a", "B=b\0c"])),
        ("args", json!(["/guest.wasm", "b\0c"])),
    ] {
        let bundle = containerd.bundle(field).unwrap().guest(HELLO).unwrap();
        let bundle = bundle
            .spec(|spec| spec["process"][field] = strings)
            .unwrap();
        let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
        let is_named = text.contains(&format!("process.{field}")) && text.contains("NUL");
        assert!(is_named, "{text}");
    }
    drop(bundle);
    finish(&containerd, &shim);
}

fn long_strings_reach_a_guest_and_not_the_command_line(engine: &str) {
    let (containerd, bundle, shim) = started(engine, LENGTHS);
    let long = "x".repeat(200_000);
    let variable = format!("LONG={long}");
    let bundle = bundle.args(&["/guest.wasm", &long]).unwrap();
    let mut bundle = bundle.env(&[&variable]).unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    let lengths = output.text().unwrap();
    assert!(lengths.starts_with("11\n200000\n200005\n"), "{lengths}");
    shim.delete("a").unwrap();

    let waiting = containerd.bundle("b").unwrap().guest(IDLE).unwrap();
    let mut waiting = waiting.args(&["/guest.wasm", &long]).unwrap();
    let output = waiting.stdout().unwrap();
    let pid = shim.create(&waiting).unwrap();
    shim.start("b").unwrap();
    output.wait_for("ready\n").unwrap();
    let shown = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(shown.len() < 8192, "{}", shown.len());
    end(&shim, "b");
    finish(&containerd, &shim);
}

fn a_module_that_is_not_valid_is_refused(engine: &str) {
    let (containerd, bundle, shim) = started(engine, INVALID_BODY);
    let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    assert!(text.contains("type mismatch"), "{text}");
    finish(&containerd, &shim);
}

/// The rule is `EROFS`. The libraries of some engines have no word for it, and then this is what they
/// say instead: a library that learns it fails the test.
fn a_read_only_file_system_is_told_as_such(engine: &str) {
    let (containerd, bundle, shim) = started(engine, READ_ONLY);
    let bundle = bundle.file("/data/file", b"text", 0o644).unwrap();
    let bundle = bundle.args(&["/guest.wasm", "/data"]).unwrap();
    let mut bundle = bundle.readonly_root().unwrap();
    let (output, errors) = (bundle.stdout().unwrap(), bundle.stderr().unwrap());
    shim.create(&bundle).unwrap();
    let status = run(&shim, "a");
    let (output, errors) = (output.text().unwrap(), errors.text().unwrap());
    match crate::engine(engine).title {
        // wasi-common ends the guest.
        "wasmi" => assert_eq!((status, &*errors), (134, "wasmi: Unknown OS error\n")),
        title => {
            let expected = match title {
                "Wasmtime" | "Wasmer" => "I/O error",
                _ => "Read-only file system",
            };
            let attempts = [
                "create",
                "open for writing",
                "make a directory",
                "remove",
                "rename",
            ];
            let told: String = attempts
                .map(|what| format!("{what}: {expected}\n"))
                .concat();
            assert_eq!((status, output, &*errors), (0, told, ""));
        }
    }
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}
