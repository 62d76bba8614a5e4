//! Keeps `docs/writing-an-engine.md` and this example the same.

const PAGE: &str = include_str!("../../../docs/writing-an-engine.md");

fn check(code: &str) {
    assert!(
        PAGE.contains(&format!("```rust\n{code}```\n")),
        "the page does not quote:\n{code}"
    );
}

#[test]
fn the_page_quotes_the_engine() {
    check(include_str!("../src/lib.rs"));
}

#[test]
fn the_page_quotes_the_shim() {
    check(include_str!("../src/main.rs"));
}

#[test]
fn the_page_quotes_the_conformance_test() {
    check(include_str!("conformance.rs"));
}
