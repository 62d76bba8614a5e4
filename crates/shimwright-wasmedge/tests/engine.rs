//! What the shared suite does not ask of an engine: that compiled code is what runs, whose code it
//! is, and the node's options. A guest tells what it has found by its exit code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(linked)]
use std::time::{Duration, Instant};

use shimwright_core::{
    Artifact, BoxError, Engine, Exit, Options, Precompiled, Precompiler, Wasm, Workload,
};
use shimwright_wasmedge::WasmEdge;

fn engine(options: &str) -> WasmEdge {
    WasmEdge::new(&Options::new(serde_json::from_str(options).unwrap())).unwrap()
}

/// Native code of the engine, or bytes that its loader refuses.
fn compile(precompiler: &dyn Precompiler, wasm: &Wasm) -> Precompiled {
    // SAFETY: the tests compile with the engine, and otherwise show that it refuses the bytes.
    #[expect(unsafe_code, reason = "a shim's cache does this")]
    let precompiled = unsafe { Precompiled::compile(precompiler, wasm) };
    precompiled.unwrap()
}

/// A binary as it is, and compiled.
fn both_forms(wasm: &[u8]) -> [(&'static str, Artifact); 2] {
    let wasm = Wasm::new(wasm.to_vec()).unwrap();
    let precompiled = compile(&engine("{}"), &wasm);
    [
        ("WebAssembly", Artifact::Wasm(wasm)),
        ("precompiled", Artifact::Precompiled(precompiled)),
    ]
}

/// Runs a guest with a limit of linear memory, in pages.
fn run(pages: Option<u64>, artifact: Artifact) -> Result<Exit, BoxError> {
    let mut workload = Workload::new(artifact);
    if let Some(pages) = pages {
        workload = workload.with_limit("linear_memory", &(pages << 16).to_string())?;
    }
    engine("{}").run(&workload)
}

/// The same in both forms.
#[track_caller]
fn check(pages: Option<u64>, wasm: &[u8], expected: Exit) {
    for (form, artifact) in both_forms(wasm) {
        assert_eq!(run(pages, artifact).unwrap(), expected, "{form}");
    }
}

#[test]
#[cfg(linked)]
fn code_of_every_level_of_optimization_runs() {
    let wasm = Wasm::new(fibonacci(10, 7)).unwrap();
    for level in ["O0", "O2", "O3"] {
        let options = format!(r#"{{"optimization": "{level}"}}"#);
        let precompiled = compile(&engine(&options), &wasm);
        let exit = run(None, Artifact::Precompiled(precompiled)).unwrap();
        assert_eq!(exit, Exit::Code(7), "{level}");
    }
}

/// A guest that computes the `n`th Fibonacci number and exits with a code.
fn fibonacci(n: u32, code: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func $fibonacci (param i32) (result i32)
            (if (result i32) (i32.lt_s (local.get 0) (i32.const 2))
                (then (local.get 0))
                (else (i32.add
                    (call $fibonacci (i32.sub (local.get 0) (i32.const 1)))
                    (call $fibonacci (i32.sub (local.get 0) (i32.const 2)))))))
        (func (export "_start")
            (drop (call $fibonacci (i32.const {n})))
            (call $exit (i32.const {code}))))"#
    );
    wat::parse_str(text).unwrap()
}

/// How long WasmEdge takes for a guest if it is told nothing: it then interprets, also what is
/// compiled.
#[cfg(linked)]
fn interpreted(wasm: &[u8]) -> Duration {
    use wasmedge_sdk::{Module, Store, Vm, vm::SyncInst, wasi::WasiModule};

    let mut wasi = WasiModule::create(None, None, None).unwrap();
    let instance: &mut dyn SyncInst = wasi.as_mut();
    let instances = [(instance.name().unwrap(), instance)].into();
    let mut vm = Vm::new(Store::new(None, instances).unwrap());
    let module = Module::from_bytes(None, wasm).unwrap();
    vm.register_module(None, module).unwrap();
    let begin = Instant::now();
    vm.run_func(None, "_start", []).unwrap();
    begin.elapsed()
}

#[cfg(linked)]
#[test]
fn compiled_code_is_run_and_not_interpreted() {
    let wasm = fibonacci(30, 3);
    let [_, (_, precompiled)] = both_forms(&wasm);
    let begin = Instant::now();
    assert_eq!(run(None, precompiled).unwrap(), Exit::Code(3));
    let compiled = begin.elapsed();
    let interpreted = interpreted(&wasm);
    assert!(
        compiled * 5 < interpreted,
        "{compiled:?} compiled and {interpreted:?} interpreted"
    );
}

/// The native code that the compiler adds to a binary, which is all that is behind it.
fn native_code(wasm: &[u8]) -> Vec<u8> {
    let compiled = engine("{}").precompile(wasm).unwrap();
    let at = compiled
        .windows(wasm.len())
        .position(|bytes| bytes == wasm)
        .unwrap();
    compiled[at + wasm.len()..].to_vec()
}

#[test]
fn native_code_of_an_image_is_not_run() {
    let wasm = fibonacci(1, 3);
    let foreign = native_code(&fibonacci(1, 4));
    let name = foreign.windows(8).position(|bytes| bytes == b"wasmedge");
    assert!(name.is_some_and(|at| at < 8), "{:?}", &foreign[..16]);
    let (preamble, rest) = wasm.split_at(8);
    for hostile in [
        [&wasm, &*foreign].concat(),
        [preamble, &foreign, rest].concat(),
    ] {
        check(None, &hostile, Exit::Code(3));
        // Nor is it there any more, whichever of two the library would take.
        let compiled = engine("{}").precompile(&hostile).unwrap();
        let mut all = compiled.windows(foreign.len());
        assert!(!all.any(|bytes| bytes == foreign));
    }
}

/// Grows its memory to the number of pages given and exits with 0, or else with 1.
fn grows_to(pages: u32, minimum: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") {minimum})
        (func (export "_start")
            (call $exit (i32.eq
                (memory.grow (i32.const {grown})) (i32.const -1)))))"#,
        grown = pages - minimum
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn memory_grows_to_the_limit_and_no_further() {
    check(None, &grows_to(17, 1), Exit::Code(0));
    check(Some(16), &grows_to(16, 1), Exit::Code(0));
    check(Some(16), &grows_to(17, 1), Exit::Code(1));
}

#[test]
fn a_guest_that_needs_more_memory_is_not_started() {
    for (form, artifact) in both_forms(&grows_to(17, 17)) {
        let error = run(Some(16), artifact).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("but its limit is 1048576"), "{form}: {text}");
    }
}

#[test]
fn the_library_is_of_the_version_that_is_expected() {
    engine("{}").load().unwrap();
}

#[test]
fn a_plug_in_that_is_missing_is_named() {
    let error = engine(r#"{"plugins": ["wasi_nn"]}"#).load().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("libwasmedgePluginWasiNN.so"), "{text}");
}

#[test]
fn code_that_is_damaged_is_an_error() {
    struct Damaged;
    impl Precompiler for Damaged {
        fn fingerprint(&self) -> String {
            String::new()
        }
        fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
            Ok(wasm.to_vec())
        }
    }
    let wasm = Wasm::new(fibonacci(1, 3)).unwrap();
    let precompiled = compile(&Damaged, &wasm);
    run(None, Artifact::Precompiled(precompiled)).unwrap_err();
}
