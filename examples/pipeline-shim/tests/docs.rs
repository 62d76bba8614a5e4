//! Keeps `docs/writing-an-engine.md` and this example the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

const PAGE: &str = include_str!("../../../docs/writing-an-engine.md");

fn check(code: &str) {
    assert!(
        PAGE.contains(&format!("```rust\n{code}```\n")),
        "the page does not quote:\n{code}"
    );
}

#[test]
fn the_page_quotes_the_manifest() {
    check(include_str!("../src/manifest.rs"));
}

#[test]
fn the_page_quotes_what_runs_applications() {
    let engine = include_str!("../src/lib.rs");
    let begin = engine.find("impl Applications for Pipelines {").unwrap();
    check(&engine[begin..]);
}
