//! What a manifest gets that takes over the parser of an engine: nothing, and no trust.

use serde_json::{Value, json};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Containerd, Shim};

use crate::{containerd_with, finish, refused};

fn started() -> (Containerd, Shim) {
    let containerd = containerd_with(env!("CARGO_BIN_EXE_containerd-shim-hostile-v1"));
    let first = containerd.bundle("first").unwrap().pod("p").unwrap();
    let shim = containerd.start(&first).unwrap();
    (containerd, shim)
}

/// The reason why a create with this manifest is refused.
#[track_caller]
fn attack(containerd: &Containerd, shim: &Shim, id: &str, manifest: &str, code: Code) -> String {
    let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
    let bundle = bundle.args(&["/"]).unwrap().env(&["SECRET=x"]).unwrap();
    let bundle = bundle.file("/attack", manifest.as_bytes(), 0o644).unwrap();
    refused(shim.create(&bundle), code)
}

#[test]
fn a_planner_has_nothing_and_is_held_to_little() {
    let (containerd, shim) = started();
    for (what, expected) in [
        ("file", "refused: Os { code: 1, kind: PermissionDenied"),
        ("directory", "refused: Os { code: 1, kind: PermissionDenied"),
        ("network", "refused: Os { code: 1, kind: PermissionDenied"),
        ("program", "refused: Os { code: 1, kind: PermissionDenied"),
        ("variables", "refused: [\"SHIMWRIGHT_PLANNER\"]"),
        ("memory", "memory allocation of 1073741824 bytes failed"),
        ("panic", "no such attack"),
        ("line", "/attack: a\\nlevel=error b\\u{1b}[2J"),
        ("time", "the manifest cannot be read within 10 seconds"),
    ] {
        let reason = attack(&containerd, &shim, what, what, Code::INVALID_ARGUMENT);
        assert!(reason.contains(expected), "{what}: {reason}");
    }
    finish(&containerd, &shim);
}

#[test]
fn a_plan_is_checked_by_the_launcher_too() {
    let (containerd, shim) = started();
    let plan = |components: Value, files: Value| {
        let plan = json!({ "components": components, "files": files, "requirements": [] });
        format!("plan {plan}")
    };
    let part = |source: Value| json!({ "name": "one", "source": source });
    let shadow = part(json!({ "Path": "../../etc/shadow" }));
    let layer = part(json!({ "Layer": "sha256:0" }));
    let many: Vec<_> = (0..129)
        .map(|n| json!({ "name": n.to_string(), "source": { "Path": "a" } }))
        .collect();
    for (index, (plan, code, expected)) in [
        (
            plan(json!([shadow]), json!([])),
            Code::INVALID_ARGUMENT,
            "component \"one\": the path \"../../etc/shadow\" leaves the root file system",
        ),
        (
            plan(json!([part(json!({ "Path": "a" }))]), json!([shadow])),
            Code::INVALID_ARGUMENT,
            "file \"one\": the path \"../../etc/shadow\" leaves the root file system",
        ),
        (
            plan(json!([layer]), json!([])),
            Code::INVALID_ARGUMENT,
            "the digest \"sha256:0\" is of no layer",
        ),
        (
            plan(Value::from(many), json!([])),
            Code::INVALID_ARGUMENT,
            "129 components, more than 128",
        ),
        (
            plan(json!([]), json!([])),
            Code::INVALID_ARGUMENT,
            "the application has no component",
        ),
        ("plan ".to_owned(), Code::INTERNAL, "cannot read the plan"),
        ("plan {".to_owned(), Code::INTERNAL, "cannot read the plan"),
        (
            "plan {} {}".to_owned(),
            Code::INTERNAL,
            "cannot read the plan",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let reason = attack(&containerd, &shim, &index.to_string(), &plan, code);
        assert!(reason.contains(expected), "{plan}: {reason}");
    }
    finish(&containerd, &shim);
}
