//! Core modules with WASI preview 1.

use shimwright_core::{Artifact, BoxError, Exit, Precompiled, Refusal, Workload};
use wasmtime::{Engine, InstancePre, Linker, Module, Store, UnknownImportError, Val};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use crate::limits::Limits;
use crate::wasi;

/// Runs the workload's function, and before it what initializes the module.
pub(crate) async fn run(engine: &Engine, workload: &Workload) -> Result<Exit, BoxError> {
    let module = match workload.artifact() {
        Artifact::Precompiled(precompiled) => load(engine, precompiled)?,
        _ => Module::new(engine, workload.wasm()?)?,
    };
    let calls = workload.calls(|name| Some(module.get_export(name)?.func()?.params().len()))?;
    shimwright_core::forbid_new_code()?;
    let linked = link(engine, &module)?;
    let guest = Guest {
        wasi: wasi::context(workload)?.build_p1(),
        limits: Limits::new(workload),
    };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.limits);
    match call(&linked, &mut store, &calls).await {
        Ok(()) => Ok(Exit::Code(0)),
        Err(error) => wasi::ended(error),
    }
}

/// What the guest's imports work on.
struct Guest {
    wasi: WasiP1Ctx,
    limits: Limits,
}

/// Maps a module that was compiled earlier.
fn load(engine: &Engine, precompiled: &Precompiled) -> Result<Module, BoxError> {
    let file = precompiled.take_file()?;
    #[expect(
        unsafe_code,
        reason = "the loader of native code; only `Precompiled` gets here"
    )]
    // SAFETY: the file must hold output of `Engine::precompile_module`, unchanged while mapped.
    // `Precompiled` is made only of this engine's own output, and core keeps its file from being
    // changed. Output of another version or for another machine is refused by Wasmtime.
    let module = unsafe { Module::deserialize_open_file(engine, file) };
    Ok(module?)
}

/// Finds the module's imports.
fn link(engine: &Engine, module: &Module) -> Result<InstancePre<Guest>, BoxError> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
    // Wasmtime's own refuses codes above 125, yet exit(-1) is common and a container's to use.
    linker.allow_shadowing(true).func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) },
    )?;
    linker.instantiate_pre(module).map_err(|error| {
        match error.downcast_ref::<UnknownImportError>() {
            Some(import) => Refusal::unknown_import(import.module(), import.name()).into(),
            None => error.into(),
        }
    })
}

/// Calls functions, one after the other.
async fn call(
    linked: &InstancePre<Guest>,
    store: &mut Store<Guest>,
    names: &[&str],
) -> wasmtime::Result<()> {
    let instance = wasi::started(linked.instantiate_async(&mut *store).await)?;
    for name in names {
        let Some(function) = instance.get_func(&mut *store, name) else {
            wasmtime::bail!("the module exports no function `{name}`");
        };
        let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
        function.call_async(&mut *store, &[], &mut results).await?;
    }
    Ok(())
}
