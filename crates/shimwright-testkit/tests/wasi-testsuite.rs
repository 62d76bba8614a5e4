//! The runner of directories in the conventions of WebAssembly/wasi-testsuite, on real shims: what
//! must pass passes, and what must fail is reported.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use shimwright_guests::{
    ARGS, CAT, ENV, EXIT_CODE, FILES, Guest, HELLO, HELLO_COMPONENT, HTTP_COMPONENT, STREAMS, TRAP,
};
use shimwright_testkit::SHIM_DIR_VARIABLE;
use tempfile::TempDir;

/// A directory of tests.
struct Suite(TempDir);

impl Suite {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds a guest, with a specification unless that is empty.
    fn add(&self, name: &str, guest: Guest, spec: &str) {
        let file = self.path().join(name);
        fs::write(file.with_extension("wasm"), guest.wasm()).unwrap();
        if !spec.is_empty() {
            fs::write(file.with_extension("json"), spec).unwrap();
        }
    }

    fn run(&self, engine: &str, options: &[&str]) -> Ran {
        let shims = std::env::var_os(SHIM_DIR_VARIABLE)
            .unwrap_or_else(|| panic!("{SHIM_DIR_VARIABLE} is not set: use `cargo xtask test`"));
        let shim = Path::new(&shims).join(shimwright_engines::by_name(engine).unwrap().shim);
        let output = Command::new(env!("CARGO_BIN_EXE_wasi-testsuite"))
            .arg("--shim")
            .arg(shim)
            .args(options)
            .arg(self.path())
            .output()
            .unwrap();
        Ran::new(output)
    }
}

/// What the runner has said.
struct Ran {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        Self {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The line about a test, and those below it.
    #[track_caller]
    fn about(&self, name: &str) -> (String, String) {
        let lines: Vec<_> = self.stdout.lines().collect();
        let end = format!("/{name}");
        let is_title = |line: &&str| line.split(": ").next().unwrap().ends_with(&end);
        let index = lines.iter().position(is_title);
        let index = index.unwrap_or_else(|| panic!("nothing about {name}: {}", self.stdout));
        let below = lines[index + 1..]
            .iter()
            .take_while(|line| line.starts_with("      "));
        let below: Vec<_> = below.map(|line| line.trim()).collect();
        (lines[index].trim().to_owned(), below.join("\n"))
    }

    #[track_caller]
    fn check_passed(&self, name: &str) {
        let (title, below) = self.about(name);
        assert!(title.starts_with("ok "), "{title}\n{below}");
    }

    #[track_caller]
    fn check_failed(&self, name: &str, reason: &str) {
        let (title, below) = self.about(name);
        assert!(title.starts_with("FAILED "), "{title}");
        assert!(below.contains(reason), "{below}");
    }

    #[track_caller]
    fn check_counts(&self, counts: &str) {
        let last = self.stdout.lines().last().unwrap_or_default();
        assert!(last.starts_with(counts), "{}{}", self.stdout, self.stderr);
    }
}

fn engines() -> impl Iterator<Item = &'static str> {
    shimwright_engines::ALL.iter().map(|engine| engine.name)
}

#[test]
fn what_is_as_expected_passes() {
    let suite = Suite::new();
    suite.add("plain", HELLO, "");
    suite.add(
        "output",
        STREAMS,
        r#"{"stdout": "to standard output", "stderr": "to standard error"}"#,
    );
    suite.add(
        "arguments",
        ARGS,
        r#"{"args": ["a", "b c"], "stdout": "arguments.wasm\na\nb c\n"}"#,
    );
    suite.add(
        "environment",
        ENV,
        r#"{"env": {"A": "1", "B": "2"}, "stdout": "A=1\nB=2\n"}"#,
    );
    suite.add("code", EXIT_CODE, r#"{"args": ["3"], "exit_code": 3}"#);
    suite.add("trap", TRAP, r#"{"exit_code": 134}"#);
    suite.add(
        "input",
        CAT,
        r#"{"operations": [{"type": "run"},
            {"type": "write", "id": "stdin", "payload": "one two"},
            {"type": "read", "id": "stdout", "payload": "one"},
            {"type": "read", "payload": " two"},
            {"type": "wait"}]}"#,
    );
    for engine in engines() {
        let ran = suite.run(engine, &[]);
        ran.check_counts("7 passed, 0 failed, 0 not run");
        assert!(ran.success);
        ran.check_passed("plain");
    }
}

#[test]
fn what_is_not_as_expected_is_reported() {
    let suite = Suite::new();
    suite.add("right", HELLO, "");
    suite.add("output", HELLO, r#"{"stdout": "Goodbye\n"}"#);
    suite.add("error", STREAMS, r#"{"stderr": ""}"#);
    suite.add("code", EXIT_CODE, r#"{"args": ["3"]}"#);
    suite.add("no-failure", HELLO, r#"{"exit_code": 1}"#);
    suite.add("trap", TRAP, "");
    suite.add(
        "read",
        STREAMS,
        r#"{"operations": [{"type": "run"}, {"type": "read", "payload": "to standard error"},
            {"type": "wait"}]}"#,
    );
    suite.add(
        "too-little",
        HELLO,
        r#"{"operations": [{"type": "run"},
            {"type": "read", "payload": "Hello from Wasm\nand more"}, {"type": "wait"}]}"#,
    );
    suite.add("directory", FILES, r#"{"root": "missing"}"#);
    fs::write(suite.path().join("broken.wasm"), "no WebAssembly").unwrap();
    for engine in engines() {
        let ran = suite.run(engine, &[]);
        ran.check_counts("1 passed, 9 failed, 0 not run");
        assert!(!ran.success);
        ran.check_passed("right");
        ran.check_failed("output", r#"is "Hello from Wasm\n" instead of "Goodbye\n""#);
        ran.check_failed("error", r#"is "to standard error" instead of """#);
        ran.check_failed("code", "exit code 3 instead of 0");
        ran.check_failed("no-failure", "exit code 0 instead of 1");
        ran.check_failed("trap", "exit code 134 instead of 0");
        // Why it has failed is on its standard error.
        ran.check_failed("trap", "unreachable");
        ran.check_failed("read", r#"is "to standard outpu" instead of"#);
        ran.check_failed("too-little", r#"is "Hello from Wasm\n" instead of"#);
        ran.check_failed("directory", "missing");
        ran.check_failed("broken", "it is not created");
    }
}

#[test]
fn each_test_has_a_directory_of_its_own() {
    let suite = Suite::new();
    let data = suite.path().join("root/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("in.txt"), "once\n").unwrap();
    fs::write(data.join("out.cleanup"), "of another runner").unwrap();
    // The guest removes its input.
    for name in ["first", "second"] {
        suite.add(name, FILES, r#"{"root": "root", "stdout": "done\n"}"#);
    }
    let under = suite.path().join("data");
    fs::create_dir(&under).unwrap();
    fs::write(under.join("in.txt"), "once\n").unwrap();
    suite.add("older", FILES, r#"{"dirs": ["data"], "stdout": "done\n"}"#);
    suite.add("without", FILES, r#"{"exit_code": 1}"#);
    for engine in engines() {
        let ran = suite.run(engine, &[]);
        ran.check_counts("4 passed, 0 failed, 0 not run");
    }
    let left: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn components_are_not_run_by_an_engine_without_them() {
    let suite = Suite::new();
    suite.add("module", HELLO, "");
    suite.add("component", HELLO_COMPONENT, "");
    for engine in shimwright_engines::ALL {
        let ran = suite.run(engine.name, &[]);
        assert!(ran.success);
        if engine.has_components {
            ran.check_counts("2 passed, 0 failed, 0 not run");
            continue;
        }
        ran.check_counts("1 passed, 0 failed, 1 not run");
        let (title, _) = ran.about("component");
        assert!(title.starts_with("not run "), "{title}");
        assert!(title.ends_with("not a component"), "{title}");
    }
}

#[test]
fn a_served_test_is_asked() {
    let suite = Suite::new();
    let spec = |path: &str, body: &str, expected: &str| {
        format!(
            r#"{{"proposals": ["http"], "world": "wasi:http/service", "operations": [
                {{"type": "run"}},
                {{"type": "request", "method": "POST", "path": "{path}", "body": "{body}",
                  "response": {{"status": 200, "body": "{expected}"}}}},
                {{"type": "kill", "signal": "SIGINT"}},
                {{"type": "wait"}}]}}"#
        )
    };
    suite.add("echo", HTTP_COMPONENT, &spec("/echo", "hey", "hey"));
    suite.add("mistake", HTTP_COMPONENT, &spec("/echo", "hey", "you"));
    suite.add("trap", HTTP_COMPONENT, &spec("/trap", "", ""));
    let ran = suite.run("wasmtime", &[]);
    ran.check_counts("1 passed, 2 failed, 0 not run");
    ran.check_passed("echo");
    ran.check_failed("mistake", r#"is "hey" instead of "you""#);
    ran.check_failed("trap", "status 500 instead of 200");
}

#[test]
fn an_unknown_key_is_an_error_before_anything_runs() {
    let suite = Suite::new();
    suite.add("fine", HELLO, "");
    suite.add("typo", HELLO, r#"{"exitcode": 0}"#);
    for options in [&[][..], &["--list"]] {
        let ran = suite.run("wasmtime", options);
        assert!(!ran.success && ran.stdout.is_empty(), "{}", ran.stdout);
        let names_both = ran.stderr.contains("typo.json") && ran.stderr.contains("`exitcode`");
        assert!(names_both, "{}", ran.stderr);
    }
}

#[test]
fn tests_are_listed_and_chosen() {
    let suite = Suite::new();
    for name in ["one", "two"] {
        suite.add(name, HELLO, "");
    }
    let listed = suite.run("wasmtime", &["--list"]);
    assert!(listed.success);
    assert_eq!(listed.stdout.lines().count(), 2);
    let ran = suite.run("wasmtime", &["--only", "two"]);
    ran.check_counts("1 passed, 0 failed, 0 not run");
    assert!(!suite.run("wasmtime", &["--only", "three"]).success);
}
