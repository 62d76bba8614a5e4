//! Manifests that would get at more than the image, or cost the node too much.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, Shim};

use crate::{MANIFEST, TWO, bundle, containerd, finish, refused, run};

/// A manifest of one stage at this path.
fn one(path: &str) -> String {
    let stage = serde_json::json!({ "name": "one", "source": { "path": path } });
    serde_json::json!({ "stages": [stage] }).to_string()
}

/// Checks that a create is refused in a moment, with a reason that has this text.
#[track_caller]
fn check(shim: &Shim, bundle: &Bundle, expected: &str) {
    let begin = Instant::now();
    let reason = refused(shim.create(bundle), Code::INVALID_ARGUMENT);
    assert!(reason.contains(expected), "{reason}");
    assert!(reason.len() < 1000, "{reason}");
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

fn start(containerd: &Containerd) -> Shim {
    containerd.start(&bundle(containerd, "first", TWO)).unwrap()
}

const NO_FILE: &str = "is no regular file in the root file system";

/// Paths of a component, and why it cannot be there.
const PATHS: [(&str, &str); 18] = [
    ("../../etc/shadow", "leaves the root file system"),
    ("/bin/../../hello.wasm", "leaves the root file system"),
    ("/etc/shadow", NO_FILE),
    ("/proc/self/exe", NO_FILE),
    ("absolute", NO_FILE),
    ("relative", NO_FILE),
    ("directory-link/shadow", NO_FILE),
    ("fifo", NO_FILE),
    ("device", NO_FILE),
    ("bin", NO_FILE),
    (".", NO_FILE),
    ("", "is not a path"),
    ("nul\0byte", "is not a path"),
    ("missing.wasm", NO_FILE),
    ("text.txt", "not a WebAssembly binary"),
    ("empty", "shorter than its preamble"),
    ("broken.wasm", "pipeline cannot compile the module"),
    ("sparse", "2147483648 bytes"),
];

/// The files of these paths.
fn fill(image: &Path) {
    let write = |name: &str, content: &[u8]| std::fs::write(image.join(name), content).unwrap();
    write("text.txt", b"This is no program.\n");
    write("empty", b"");
    write("broken.wasm", b"\0asm\x01\0\0\0\xff\xff");
    let sparse = std::fs::File::create(image.join("sparse")).unwrap();
    sparse.set_len(2 << 30).unwrap();
    symlink("/etc/shadow", image.join("absolute")).unwrap();
    symlink("../../../../../../../etc/shadow", image.join("relative")).unwrap();
    symlink("/etc", image.join("directory-link")).unwrap();
    symlink("loop", image.join("loop")).unwrap();
    shimwright_testkit::stdio::fifo(&image.join("fifo")).unwrap();
    let (null, mode) = (rustix::fs::makedev(1, 3), rustix::fs::Mode::RUSR);
    let (here, kind) = (rustix::fs::CWD, rustix::fs::FileType::CharacterDevice);
    rustix::fs::mknodat(here, image.join("device"), kind, mode, null).unwrap();
}

#[test]
fn a_component_is_a_file_of_the_image() {
    let containerd = containerd();
    let shim = start(&containerd);
    for (index, (path, reason)) in PATHS.into_iter().enumerate() {
        let bundle = bundle(&containerd, &index.to_string(), &one(path));
        fill(bundle.image());
        check(&shim, &bundle, reason);
        check(&shim, &bundle, "component \"one\": ");
        bundle.remove().unwrap();
    }
    let looping = bundle(&containerd, "loop", &one("loop"));
    fill(looping.image());
    let reason = refused(shim.create(&looping), Code::INTERNAL);
    assert!(reason.contains("component \"one\""), "{reason}");
    assert!(reason.contains("symbolic links"), "{reason}");
    finish(&containerd, &shim);
}

#[test]
fn a_link_that_stays_in_the_image_is_followed_there() {
    let containerd = containerd();
    let linked = bundle(&containerd, "a", &one("link"));
    symlink("/../../hello.wasm", linked.image().join("link")).unwrap();
    let shim = containerd.start(&linked).unwrap();
    assert_eq!(run(&shim, linked).1, "Hello from Wasm\n");
    finish(&containerd, &shim);
}

/// Manifests that are not right, and why.
fn wrong() -> Vec<(String, &'static str)> {
    let stage = |more: &str| format!(r#"{{ "stages": [{{ "name": "one", {more} }}] }}"#);
    let hello = r#""source": { "path": "hello.wasm" }"#;
    let digest = format!(r#""source": {{ "digest": "sha256:{}" }}"#, "0".repeat(64));
    let input = |path: &str| {
        let begin = format!(r#"{{ "input": {{ "path": "{path}" }}, "#);
        one("hello.wasm").replacen('{', &begin, 1)
    };
    let place = "stage \"one\": it needs one of `path` and `digest`";
    vec![
        (String::new(), "EOF while parsing"),
        ("\u{1}".to_owned(), "expected value"),
        ("null".to_owned(), "expected struct Pipeline"),
        ("{}".to_owned(), "missing field `stages`"),
        (
            r#"{"stages":[]}"#.to_owned(),
            "the application has no component",
        ),
        (
            stage(&format!(r#"{hello}, "tools": 1"#)),
            "unknown field `tools`",
        ),
        (
            stage(&format!("{hello}, {hello}")),
            "duplicate field `source`",
        ),
        (stage(r#""source": {}"#), place),
        (stage(r#""source": { "path": "a", "digest": "b" }"#), place),
        (
            stage(r#""source": { "path": 7 }"#),
            "invalid type: integer `7`",
        ),
        (stage(&digest), "component \"one\": the digest \"sha256:000"),
        (one("a").replace("one", ""), "the name is empty"),
        (
            TWO.replace("copy", "hello"),
            "\"hello\": the name is not unique",
        ),
        (
            input("../x"),
            "file \"input\": the path \"../x\" leaves the root",
        ),
        (
            input("none"),
            "file \"input\": the path \"none\" is no regular file",
        ),
        (
            one("\u{1b}[2J\n"),
            "the path \"\\u{1b}[2J\\n\" is no regular file",
        ),
    ]
}

#[test]
fn a_manifest_that_cannot_be_is_refused_with_its_field() {
    let containerd = containerd();
    let shim = start(&containerd);
    for (index, (manifest, reason)) in wrong().into_iter().enumerate() {
        let bundle = bundle(&containerd, &index.to_string(), &manifest);
        check(&shim, &bundle, reason);
    }
    finish(&containerd, &shim);
}

#[test]
fn a_manifest_that_would_cost_too_much_is_refused() {
    let containerd = containerd();
    let shim = start(&containerd);
    let many = |count: usize| {
        let stage = r#"{"name":"","source":{}}"#;
        format!(r#"{{"stages":[{}]}}"#, vec![stage; count].join(","))
    };
    let named = |count: usize| {
        let stages = (0..count).map(|n| format!(r#"{{"name":"{n}","source":{{"path":"a"}}}}"#));
        format!(r#"{{"stages":[{}]}}"#, stages.collect::<Vec<_>>().join(","))
    };
    let deep = |open: &str| format!(r#"{{"stages": {}"#, open.repeat(1_000_000));
    for (index, (manifest, reason)) in [
        (
            many(1_000_000),
            "/pipeline.json has 24000012 bytes, more than 4194304",
        ),
        (
            named(100_000),
            "the application has 100000 components, more than 128",
        ),
        (deep("["), "invalid type"),
        (deep(r#"{"a":"#), "/pipeline.json has"),
        (" ".repeat(4 << 20), "EOF while parsing"),
    ]
    .into_iter()
    .enumerate()
    {
        let bundle = bundle(&containerd, &index.to_string(), &manifest);
        check(&shim, &bundle, reason);
    }
    let sparse = bundle(&containerd, "sparse", "");
    let file = std::fs::File::options()
        .write(true)
        .open(sparse.image().join("pipeline.json"));
    file.unwrap().set_len(1 << 30).unwrap();
    check(
        &shim,
        &sparse,
        "/pipeline.json has 1073741824 bytes, more than 4194304",
    );
    // Each is within the limit of a module, and all are not.
    let size = shimwright_guests::HELLO.wasm().len() + shimwright_guests::CAT.wasm().len();
    containerd
        .configure(&format!("[compile]\nmodule_size = {}", size - 1))
        .unwrap();
    let two = bundle(&containerd, "two", TWO);
    check(
        &shim,
        &two,
        "component \"copy\": with this part, those of the application have more",
    );
    containerd
        .configure(&format!("[compile]\nmodule_size = {size}"))
        .unwrap();
    assert_eq!(run(&shim, two).0, 0);
    finish(&containerd, &shim);
}

#[test]
fn a_manifest_is_a_regular_file_of_the_image() {
    let containerd = containerd();
    let shim = start(&containerd);
    let with = |id: &str, make: fn(&Path)| {
        let bundle = bundle(&containerd, id, "");
        let path = bundle.image().join("pipeline.json");
        std::fs::remove_file(&path).unwrap();
        make(&path);
        bundle
    };
    for bundle in [
        with("fifo", |path| {
            shimwright_testkit::stdio::fifo(path).unwrap()
        }),
        with("directory", |path| std::fs::create_dir(path).unwrap()),
        with("link", |path| {
            symlink("../../../../../../etc/passwd", path).unwrap()
        }),
    ] {
        // So there is no application, and no such program.
        check(
            &shim,
            &bundle,
            "no such file or directory: the entrypoint /pipeline.json",
        );
    }
    let linked = with("inside", |path| {
        std::fs::write(path.with_file_name("other"), one("hello.wasm")).unwrap();
        symlink("/other", path).unwrap();
    });
    assert_eq!(run(&shim, linked).1, "Hello from Wasm\n");
    assert_eq!(MANIFEST, "/pipeline.json");
    finish(&containerd, &shim);
}
