//! The comparison with real shims, in small: engines that can run a program have its figures, and
//! those that cannot say why, on the page too.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;

use shimwright_guests::{Guest, HELLO, HELLO_COMPONENT, TRAP};
use shimwright_testkit::SHIM_DIR_VARIABLE;

/// What is written to the terminal and to the page for a program of the user's.
fn compared(engines: &[&str], guest: Guest) -> (String, String) {
    let shims = std::env::var_os(SHIM_DIR_VARIABLE)
        .unwrap_or_else(|| panic!("{SHIM_DIR_VARIABLE} is not set: use `cargo xtask test`"));
    let directory = tempfile::tempdir().unwrap();
    let [app, page] = ["app.wasm", "page.html"].map(|name| directory.path().join(name));
    fs::write(&app, guest.wasm()).unwrap();
    let mut compare = Command::new(env!("CARGO_BIN_EXE_compare"));
    for engine in engines {
        let shim = Path::new(&shims).join(shimwright_engines::by_name(engine).unwrap().shim);
        compare
            .arg("--engine")
            .arg(format!("{engine}={}", shim.display()));
    }
    compare.args(["--quick", "--absent", "other=there is none"]);
    compare.arg("--app").arg(&app).arg("--output").arg(&page);
    let output = compare.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text, fs::read_to_string(&page).unwrap())
}

/// The cells of a row of the terminal's table.
fn cells<'a>(text: &'a str, row: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.starts_with(row)).unwrap();
    let cells = line[row.len()..].split_whitespace();
    cells.filter(|cell| *cell != "*").collect()
}

#[test]
fn a_program_is_compared_on_each_engine() {
    let (text, page) = compared(&["wasmtime", "wasmi"], HELLO);
    for row in [
        "cold start, ms",
        "warm start, ms",
        "runs per second, 1/s",
        "compiled size, KB",
    ] {
        let cells = cells(&text, row);
        assert_eq!(cells.len(), 2, "{text}");
        for cell in cells {
            assert!(
                cell.replace('\u{202f}', "").parse::<f64>().unwrap() > 0.0,
                "{text}"
            );
        }
    }
    assert!(
        text.contains("other is not compared: there is none"),
        "{text}"
    );
    assert!(page.contains("<svg") && page.contains("app.wasm"), "{page}");
}

#[test]
fn an_engine_that_refuses_a_program_says_why_and_the_other_runs_it() {
    let (text, page) = compared(&["wasmtime", "wasmi"], HELLO_COMPONENT);
    let cells = cells(&text, "warm start, ms");
    assert!(cells[0].parse::<f64>().is_ok() && cells[1] == "-", "{text}");
    let reason = "this engine runs a core module, not a component";
    assert!(text.contains(reason) && page.contains(reason), "{text}");
}

#[test]
fn a_program_that_fails_is_told_with_what_it_has_written() {
    let (text, _) = compared(&["wasmtime"], TRAP);
    assert!(text.contains("the program ended with 134: "), "{text}");
    assert!(text.contains("unreachable"), "{text}");
}
