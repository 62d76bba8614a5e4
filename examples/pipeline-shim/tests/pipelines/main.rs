//! Pipelines under a fake containerd: they run, from a root file system and from layers, and no
//! manifest gets at what is not the image's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attack;
mod layers;
mod planner;

use std::collections::HashMap;
use std::path::Path;

use shimwright_guests::{ARGS, CAT, EXIT_CODE, HELLO, IDLE};
use shimwright_testkit::protos::ttrpc::{Code, Result as TtrpcResult};
use shimwright_testkit::{Bundle, Containerd, Shim};

const MANIFEST: &str = "/pipeline.json";

/// What two stages print, of which the second copies its input.
const GREETING: &str = "Hello from Wasm\n<end of input>\n";

/// Two stages whose files are in the root.
const TWO: &str = r#"{ "stages": [
    { "name": "hello", "source": { "path": "hello.wasm" } },
    { "name": "copy", "source": { "path": "/bin/cat.wasm" } }
] }"#;

/// A containerd with a cache of its own.
fn containerd() -> Containerd {
    containerd_with(env!("CARGO_BIN_EXE_containerd-shim-pipeline-v1"))
}

/// The same with another shim.
fn containerd_with(shim: &str) -> Containerd {
    let containerd = Containerd::with_shim(Path::new(shim)).unwrap();
    let cache = containerd.directory().join("cache");
    containerd.with_cache(&cache).unwrap()
}

/// A container of a pod whose image has this manifest and the guests.
fn bundle(containerd: &Containerd, id: &str, manifest: &str) -> Bundle {
    let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
    let files = [
        ("/hello.wasm", HELLO),
        ("/bin/cat.wasm", CAT),
        ("/args.wasm", ARGS),
        ("/exit.wasm", EXIT_CODE),
        ("/idle.wasm", IDLE),
    ];
    let bundle = files.into_iter().fold(bundle, |bundle, (path, guest)| {
        bundle.file(path, guest.wasm(), 0o644).unwrap()
    });
    let bundle = bundle.file(MANIFEST, manifest.as_bytes(), 0o644).unwrap();
    bundle.args(&[MANIFEST]).unwrap()
}

/// Runs a container to its end and returns its status, output and errors.
fn run(shim: &Shim, mut bundle: Bundle) -> (u32, String, String) {
    let (stdout, stderr) = (bundle.stdout().unwrap(), bundle.stderr().unwrap());
    shim.create(&bundle).unwrap();
    shim.start(bundle.id()).unwrap();
    let status = shim.wait(bundle.id()).unwrap().exit_status;
    shim.delete(bundle.id()).unwrap();
    (status, stdout.text().unwrap(), stderr.text().unwrap())
}

/// Checks the code of a refusal and returns its reason.
#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: TtrpcResult<T>, code: Code) -> String {
    let (found, reason) = shimwright_testkit::shim::refusal(outcome).unwrap();
    assert_eq!(found, code, "{reason}");
    reason
}

fn finish(containerd: &Containerd, shim: &Shim) {
    shim.shutdown();
    containerd.wait_until_clean().unwrap();
}

/// The engine metrics of a container that has not been deleted.
fn metrics(containerd: &Containerd, id: &str) -> HashMap<String, f64> {
    let directory = containerd.directory().to_string_lossy();
    let ran = containerd.run(
        containerd.directory(),
        &["-bundle", &directory, "metrics"],
        &[],
    );
    let text = ran.unwrap().text().unwrap();
    let of_container = format!("container=\"{id}\"");
    let lines = text.lines().filter(|line| line.contains(&of_container));
    let values = lines.filter_map(|line| {
        let (name, _) = line.split_once('{')?;
        Some((name.to_owned(), line.rsplit(' ').next()?.parse().ok()?))
    });
    values.collect()
}

#[test]
fn a_pipeline_runs_and_its_components_are_compiled_once() {
    let containerd = containerd();
    let first = bundle(&containerd, "a", TWO);
    let shim = containerd.start(&first).unwrap();
    let mut hits = Vec::new();
    for mut bundle in [first, bundle(&containerd, "b", TWO)] {
        let output = bundle.stdout().unwrap();
        shim.create(&bundle).unwrap();
        let metrics = metrics(&containerd, bundle.id());
        hits.push(metrics["shimwright_cache_hit"]);
        let both = HELLO.wasm().len() + CAT.wasm().len();
        assert_eq!(
            metrics["shimwright_artifact_bytes"].to_string(),
            both.to_string()
        );
        shim.start(bundle.id()).unwrap();
        assert_eq!(shim.wait(bundle.id()).unwrap().exit_status, 0);
        assert_eq!(output.text().unwrap(), GREETING);
        shim.delete(bundle.id()).unwrap();
    }
    assert_eq!(hits, [0.0, 1.0]);
    // One of them is new: the other is not compiled again.
    let one = TWO.replace("hello.wasm", "args.wasm");
    let entries = || {
        let cache = std::fs::read_dir(containerd.directory().join("cache")).unwrap();
        let names = cache.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.len() == 64).count()
    };
    assert_eq!(entries(), 2);
    let (status, output, _) = run(&shim, bundle(&containerd, "c", &one));
    assert_eq!((status, &*output), (0, "hello\n<end of input>\n"));
    assert_eq!(entries(), 3);
    finish(&containerd, &shim);
}

#[test]
fn the_input_is_a_file_of_the_image_and_each_stage_has_its_arguments() {
    let containerd = containerd();
    let manifest = r#"{ "input": { "path": "in.txt" }, "stages": [
        { "name": "first", "source": { "path": "bin/cat.wasm" } },
        { "name": "last", "source": { "path": "bin/cat.wasm" } } ] }"#;
    let input = bundle(&containerd, "a", manifest)
        .file("/in.txt", b"text\n", 0o644)
        .unwrap();
    let shim = containerd.start(&input).unwrap();
    let twice = "text\n<end of input>\n<end of input>\n";
    assert_eq!(run(&shim, input).1, twice);
    // The parts are handed over: the image itself need not be there.
    let hidden = bundle(&containerd, "b", manifest)
        .file("/in.txt", b"text\n", 0o644)
        .unwrap();
    let hidden = hidden.annotation("dev.shimwright.rootfs", "none").unwrap();
    assert_eq!(run(&shim, hidden).1, twice);
    let arguments = r#"{ "stages": [
        { "name": "a", "source": { "path": "args.wasm" }, "args": ["x y", ""] },
        { "name": "b", "source": { "path": "none.wasm" }, "when": "OTHER" } ] }"#;
    assert_eq!(
        run(&shim, bundle(&containerd, "c", arguments)).1,
        "a\nx y\n\n"
    );
    // A variable asks for the other stage, which is not there.
    let other = bundle(&containerd, "d", arguments)
        .env(&["OTHER="])
        .unwrap();
    let reason = refused(shim.create(&other), Code::INVALID_ARGUMENT);
    assert!(reason.contains("component \"b\": "), "{reason}");
    finish(&containerd, &shim);
}

#[test]
fn a_stage_that_fails_ends_the_pipeline_with_its_status() {
    let containerd = containerd();
    let manifest = r#"{ "stages": [
        { "name": "exit", "source": { "path": "exit.wasm" }, "args": ["7"] },
        { "name": "copy", "source": { "path": "bin/cat.wasm" } } ] }"#;
    let failing = bundle(&containerd, "a", manifest);
    let shim = containerd.start(&failing).unwrap();
    assert_eq!(run(&shim, failing), (7, String::new(), String::new()));
    finish(&containerd, &shim);
}

#[test]
fn without_a_manifest_it_is_one_program() {
    let containerd = containerd();
    let module = containerd.bundle("a").unwrap().pod("p").unwrap();
    let module = module.guest(HELLO).unwrap();
    let shim = containerd.start(&module).unwrap();
    assert_eq!(run(&shim, module).1, "Hello from Wasm\n");
    // A manifest in a volume counts, as Kubernetes mounts a ConfigMap.
    let volume = containerd.directory().join("pipeline.json");
    std::fs::write(&volume, TWO).unwrap();
    let mounted = bundle(&containerd, "b", "")
        .bind(&volume, MANIFEST)
        .unwrap();
    assert_eq!(run(&shim, mounted).1, GREETING);
    finish(&containerd, &shim);
}

#[test]
fn an_exec_runs_a_program_of_the_image_and_never_the_application() {
    let containerd = containerd();
    let manifest = r#"{ "stages": [{ "name": "wait", "source": { "path": "idle.wasm" } }] }"#;
    let mut waiting = bundle(&containerd, "a", manifest);
    let output = waiting.stdout().unwrap();
    let shim = containerd.start(&waiting).unwrap();
    shim.create(&waiting).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    let exec = |program: &str| {
        let process = serde_json::json!({
            "args": [program], "cwd": "/", "user": { "uid": 0, "gid": 0 },
        });
        shim.add_exec("a", "e", &process, Default::default())
            .unwrap()
    };
    let module = exec("/hello.wasm");
    module.start().unwrap();
    assert_eq!(module.wait().unwrap().exit_status, 0);
    module.delete().unwrap();
    for (program, expected) in [
        (
            MANIFEST,
            "neither a WebAssembly binary nor an executable program",
        ),
        ("/", "no such file or directory"),
    ] {
        let other = exec(program);
        let reason = refused(other.start(), Code::INVALID_ARGUMENT);
        assert!(reason.contains(expected), "{reason}");
        other.delete().unwrap();
    }
    shim.kill("a", libc::SIGKILL).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 137);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}
