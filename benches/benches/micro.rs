//! What an engine does at a create, alone: telling what a program is, naming what native code
//! depends on, compiling, and mapping what was compiled.

// `criterion_group!` makes a public function without documentation.
#![allow(missing_docs, reason = "the macro's function is no interface")]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use shimwright_core::{Kind, Options, Precompiled, Precompiler, Wasm};
use shimwright_guests::{Guest, HELLO, HELLO_COMPONENT};
use shimwright_wasmer::Wasmer;
use shimwright_wasmtime::Wasmtime;

/// Each compiler with the programs that it compiles.
fn compilers() -> [(&'static str, Box<dyn Precompiler>, &'static [Guest]); 2] {
    let options = Options::default();
    [
        (
            "wasmtime",
            Box::new(Wasmtime::new(&options).unwrap()),
            &[HELLO, HELLO_COMPONENT],
        ),
        ("wasmer", Box::new(Wasmer::new(&options).unwrap()), &[HELLO]),
    ]
}

fn kinds(criterion: &mut Criterion) {
    for guest in [HELLO, HELLO_COMPONENT] {
        criterion.bench_function(&format!("kind/{}", guest.name()), |bencher| {
            bencher.iter(|| Kind::detect(black_box(guest.wasm())));
        });
    }
}

fn fingerprints(criterion: &mut Criterion) {
    for (engine, compiler, _) in compilers() {
        criterion.bench_function(&format!("fingerprint/{engine}"), |bencher| {
            bencher.iter(|| compiler.fingerprint());
        });
    }
}

fn compiling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("precompile");
    // The fewest that there may be: each takes milliseconds.
    group.sample_size(10);
    for (engine, compiler, guests) in compilers() {
        for guest in guests {
            group.bench_function(format!("{engine}/{}", guest.name()), |bencher| {
                bencher.iter(|| compiler.precompile(black_box(guest.wasm())).unwrap());
            });
        }
    }
    group.finish();
}

fn mapping(criterion: &mut Criterion) {
    for (engine, compiler, guests) in compilers() {
        for guest in guests {
            let wasm = Wasm::new(guest.wasm().to_vec()).unwrap();
            // SAFETY: this is output of the engine's own precompiler, and only mapped.
            #[expect(unsafe_code, reason = "the code is not loaded here")]
            let compiled = unsafe { Precompiled::compile(compiler.as_ref(), &wasm) }.unwrap();
            criterion.bench_function(&format!("map/{engine}/{}", guest.name()), |bencher| {
                bencher.iter(|| compiled.map().unwrap());
            });
        }
    }
}

criterion_group!(micro, kinds, fingerprints, compiling, mapping);
criterion_main!(micro);
