//! What the shared suite does not ask of an engine: threads and sockets of WASIX, and the limits of
//! memory and network. A guest tells what it has found by its exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use shimwright_core::{Artifact, BoxError, Engine, Exit, Options, Precompiled, Wasm, Workload};
use shimwright_wasmer::Wasmer;

/// Runs a guest with a limit of linear memory, in pages, as WebAssembly and precompiled.
#[track_caller]
fn check(pages: Option<u64>, guest: &str, expected: Result<Exit, &str>) {
    let limit = |workload: Workload| match pages {
        Some(pages) => set(workload, "linear_memory", &(pages << 16).to_string()),
        None => workload,
    };
    check_with(limit, guest, expected);
}

fn set(workload: Workload, key: &str, value: &str) -> Workload {
    workload.with_limit(key, value).unwrap()
}

/// Runs a guest with limits, likewise.
#[track_caller]
fn check_with(limit: impl Fn(Workload) -> Workload, guest: &str, expected: Result<Exit, &str>) {
    let wasm = Wasm::new(wat::parse_str(guest).unwrap()).unwrap();
    // SAFETY: this is output of the engine's own precompiler.
    #[expect(unsafe_code, reason = "a shim's cache does this")]
    let precompiled = unsafe { Precompiled::compile(&engine(), &wasm) }.unwrap();
    for (form, artifact) in [
        ("WebAssembly", Artifact::Wasm(wasm)),
        ("precompiled", Artifact::Precompiled(precompiled)),
    ] {
        let found = engine().run(&limit(Workload::new(artifact)));
        match (&found, &expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{form}"),
            (Err(error), Err(reason)) => {
                let text = chain(error);
                assert!(text.contains(reason), "{form}: {text}");
            }
            _ => panic!("{form}: {found:?} instead of {expected:?}"),
        }
    }
}

fn engine() -> Wasmer {
    Wasmer::new(&Options::default()).unwrap()
}

fn chain(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A guest with one thread more, whose body this is. The first one runs `main`.
fn with_thread(imports: &str, main: &str, thread: &str) -> String {
    format!(
        r#"(module
        (import "env" "memory" (memory 1 4 shared))
        (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        {imports}
        (func (export "_start")
            {main})
        (func (export "wasi_thread_start") (param $id i32) (param $argument i32)
            {thread}))"#
    )
}

/// Starts the thread, whose argument is 42.
const SPAWN: &str = "(if (i32.lt_s (call $spawn (i32.const 42)) (i32.const 0))
    (then (call $exit (i32.const 101))))";

/// Waits for the number at 0 to become another than 0, at most 10 s.
const AWAIT: &str =
    "(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 10000000000)))";

#[test]
fn threads_share_memory() {
    let guest = with_thread(
        "",
        &format!("{SPAWN} {AWAIT} (call $exit (i32.atomic.load (i32.const 0)))"),
        "(i32.atomic.store (i32.const 0) (local.get $argument))
        (drop (memory.atomic.notify (i32.const 0) (i32.const 1)))",
    );
    check(None, &guest, Ok(Exit::Code(42)));
}

#[test]
fn the_guest_ends_when_its_first_thread_returns() {
    let guest = with_thread("", SPAWN, "(loop $for_ever (br $for_ever))");
    check(None, &guest, Ok(Exit::Code(0)));
}

#[test]
fn another_thread_ends_a_guest_that_computes() {
    let guest = with_thread(
        "",
        &format!("{SPAWN} (loop $for_ever (br $for_ever))"),
        "(call $exit (i32.const 200))",
    );
    check(None, &guest, Ok(Exit::Code(200)));
}

#[test]
fn a_trap_of_another_thread_is_a_trap() {
    let guest = with_thread("", &format!("{SPAWN} {AWAIT}"), "(unreachable)");
    check(None, &guest, Ok(Exit::Trap("unreachable".to_owned())));
}

/// A guest whose thread connects to a socket of the first one's, sends it four bytes and gets them
/// back: it exits with 77. What fails has a code of its own; connecting has 12.
fn connects() -> String {
    let imports = r#"
        (import "wasix_32v1" "sock_open" (func $open (param i32 i32 i32 i32) (result i32)))
        (import "wasix_32v1" "sock_bind" (func $bind (param i32 i32) (result i32)))
        (import "wasix_32v1" "sock_listen" (func $listen (param i32 i32) (result i32)))
        (import "wasix_32v1" "sock_addr_local" (func $local (param i32 i32) (result i32)))
        (import "wasix_32v1" "sock_connect" (func $connect (param i32 i32) (result i32)))
        (import "wasix_32v1" "sock_accept_v2"
            (func $accept (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read"
            (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        ;; The data is written anew for each thread, so at 208 is a copy of the first thread's address.
        ;; At 16 the address: a family (IPv4), a byte of padding, a port, 127.0.0.1.
        (data (i32.const 16) "\01\00\00\00\7f\00\00\01")
        ;; At 64 and 80 where to read to and what to write; at 96 what to write.
        (data (i32.const 64) "\80\00\00\00\04\00\00\00")
        (data (i32.const 80) "\60\00\00\00\04\00\00\00")
        (data (i32.const 96) "ping")
        ;; The thread's own: at 160 where to read to, at 176 the bytes.
        (data (i32.const 160) "\b0\00\00\00\04\00\00\00")
        (func $must (param $errno i32) (param $step i32)
            (if (local.get $errno) (then (call $exit (local.get $step)))))"#;
    let main = format!(
        "(call $must (call $open (i32.const 1) (i32.const 1) (i32.const 6) (i32.const 48))
            (i32.const 1))
        (call $must (call $bind (i32.load (i32.const 48)) (i32.const 16)) (i32.const 2))
        (call $must (call $listen (i32.load (i32.const 48)) (i32.const 1)) (i32.const 3))
        (call $must (call $local (i32.load (i32.const 48)) (i32.const 16)) (i32.const 4))
        (i64.store (i32.const 208) (i64.load (i32.const 16)))
        ;; The port is given in the order of the network and taken in that of the machine.
        (i32.store8 (i32.const 210) (i32.load8_u (i32.const 19)))
        (i32.store8 (i32.const 211) (i32.load8_u (i32.const 18)))
        {SPAWN}
        (call $must (call $accept (i32.load (i32.const 48)) (i32.const 0) (i32.const 52)
            (i32.const 240)) (i32.const 5))
        (call $must (call $read (i32.load (i32.const 52)) (i32.const 64) (i32.const 1)
            (i32.const 56)) (i32.const 6))
        (i32.store (i32.const 96) (i32.load (i32.const 128)))
        (call $must (call $write (i32.load (i32.const 52)) (i32.const 80) (i32.const 1)
            (i32.const 56)) (i32.const 7))
        {AWAIT}
        (call $exit (i32.const 0))"
    );
    let thread = "
        (call $must (call $open (i32.const 1) (i32.const 1) (i32.const 6) (i32.const 144))
            (i32.const 11))
        (call $must (call $connect (i32.load (i32.const 144)) (i32.const 208)) (i32.const 12))
        (call $must (call $write (i32.load (i32.const 144)) (i32.const 80) (i32.const 1)
            (i32.const 148)) (i32.const 13))
        (call $must (call $read (i32.load (i32.const 144)) (i32.const 160) (i32.const 1)
            (i32.const 148)) (i32.const 14))
        ;; \"ping\", little endian
        (if (i32.ne (i32.load (i32.const 176)) (i32.const 0x676e6970))
            (then (call $exit (i32.const 15))))
        (call $exit (i32.const 77))";
    with_thread(imports, &main, thread)
}

/// Allows these destinations only.
fn outbound(list: &[&str]) -> impl Fn(Workload) -> Workload {
    let list = match list {
        [] => "none".to_owned(),
        list => list.join(" "),
    };
    move |workload| set(workload, "outbound", &list)
}

#[test]
fn sockets_listen_and_connect() {
    check(None, &connects(), Ok(Exit::Code(77)));
}

#[test]
fn a_guest_connects_to_what_it_is_allowed_to_only() {
    check_with(outbound(&["127.0.0.0/8"]), &connects(), Ok(Exit::Code(77)));
    for list in [&[][..], &["10.0.0.0/8", "::/0", "127.0.0.1:1"]] {
        check_with(outbound(list), &connects(), Ok(Exit::Code(12)));
    }
}

/// A guest that sends a datagram to port 9 of the loopback and exits with the error.
const SENDS: &str = r#"(module
    (import "wasix_32v1" "sock_open" (func $open (param i32 i32 i32 i32) (result i32)))
    (import "wasix_32v1" "sock_send_to"
        (func $send (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    ;; At 16 the address: a family (IPv4), a byte of padding, a port in the order of the machine,
    ;; 127.0.0.1.
    (data (i32.const 16) "\01\00\09\00\7f\00\00\01")
    ;; At 64 what to send: four bytes at 96.
    (data (i32.const 64) "\60\00\00\00\04\00\00\00")
    (func (export "_start")
        (if (call $open (i32.const 1) (i32.const 2) (i32.const 17) (i32.const 48))
            (then (call $exit (i32.const 101))))
        (call $exit (call $send (i32.load (i32.const 48)) (i32.const 64) (i32.const 1)
            (i32.const 0) (i32.const 16) (i32.const 56)))))"#;

/// `perm` of WASI.
const REFUSED: i32 = 63;

#[test]
fn a_guest_sends_to_what_it_is_allowed_to_only() {
    check(None, SENDS, Ok(Exit::Code(0)));
    check_with(outbound(&["127.0.0.1:9"]), SENDS, Ok(Exit::Code(0)));
    check_with(outbound(&["127.0.0.1:8"]), SENDS, Ok(Exit::Code(REFUSED)));
}

#[test]
fn names_are_looked_up_unless_that_is_forbidden() {
    let resolves = r#"(module
        (import "wasix_32v1" "resolve"
            (func $resolve (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "localhost")
        (func (export "_start")
            (call $exit (call $resolve (i32.const 16) (i32.const 9) (i32.const 0)
                (i32.const 64) (i32.const 4) (i32.const 48)))))"#;
    check(None, resolves, Ok(Exit::Code(0)));
    let forbidden = |workload: Workload| set(workload, "name_lookup", "none");
    check_with(forbidden, resolves, Ok(Exit::Code(REFUSED)));
}

/// Grows its memory to the number of pages given and exits with 0, or else with 1.
fn grows_to(pages: u32, minimum: u32) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") {minimum})
        (func (export "_start")
            (call $exit (i32.eq
                (memory.grow (i32.const {grown})) (i32.const -1)))))"#,
        grown = pages - minimum
    )
}

#[test]
fn memory_grows_to_the_limit_and_no_further() {
    check(None, &grows_to(17, 1), Ok(Exit::Code(0)));
    check(Some(16), &grows_to(16, 1), Ok(Exit::Code(0)));
    check(Some(16), &grows_to(17, 1), Ok(Exit::Code(1)));
}

#[test]
fn a_guest_that_needs_more_memory_is_not_started() {
    check(Some(16), &grows_to(17, 17), Err("but its limit is 1048576"));
}
