//! Components with WASI 0.2.

use std::os::unix::fs::FileExt;

use shimwright_core::{Artifact, BoxError, DEFAULT_FUNCTION, Exit, Precompiled, Workload};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentExportIndex, InstancePre, Linker, ResourceTable, Val,
};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::{self, bindings::CommandPre};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::wasi;

/// What the guest's imports work on.
struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Runs `wasi:cli/run`, or an exported function of another name.
pub(crate) async fn run(engine: &Engine, workload: &Workload) -> Result<Exit, BoxError> {
    let component = match workload.artifact() {
        Artifact::Precompiled(precompiled) => load(engine, precompiled)?,
        _ => Component::new(engine, workload.wasm()?)?,
    };
    let host = Host {
        wasi: wasi::context(workload)?.build(),
        table: ResourceTable::new(),
    };
    let mut store = Store::new(engine, host);
    let result = if workload.function() == DEFAULT_FUNCTION {
        let command = CommandPre::new(link(engine, &component)?)
            .map_err(|error| format!("the component is not a command: {error}"))?;
        run_command(&command, &mut store).await
    } else {
        let (index, results) = find(&component, workload.function())?;
        let linked = link(engine, &component)?;
        call(&linked, &mut store, &index, results).await
    };
    Ok(match result {
        Ok(exit) => exit,
        Err(error) => wasi::exit(&error),
    })
}

/// Loads a component that was compiled earlier.
///
/// It is copied to private memory. Wasmtime 48 maps an open file for modules only; for components
/// it wants a path, and in a container the artifact has none.
fn load(engine: &Engine, precompiled: &Precompiled) -> Result<Component, BoxError> {
    let file = precompiled.file();
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    #[expect(
        unsafe_code,
        reason = "the loader of native code; only `Precompiled` gets here"
    )]
    // SAFETY: the bytes must be output of `Engine::precompile_component`, and `Precompiled` is made
    // only of this engine's own output. That of another version or for another machine is refused
    // by Wasmtime.
    Ok(unsafe { Component::deserialize(engine, &bytes) }?)
}

/// Finds the component's imports.
fn link(engine: &Engine, component: &Component) -> wasmtime::Result<InstancePre<Host>> {
    let mut linker = Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    linker.instantiate_pre(component)
}

/// Finds an exported function without parameters, and says how many results it has.
fn find(component: &Component, name: &str) -> Result<(ComponentExportIndex, usize), BoxError> {
    match component.get_export(None, name) {
        Some((ComponentItem::ComponentFunc(ty), index)) => match ty.params().len() {
            0 => Ok((index, ty.results().len())),
            n => Err(format!("the function `{name}` needs {n} parameters, but gets none").into()),
        },
        Some(_) => Err(format!("the component's export `{name}` is not a function").into()),
        None => Err(format!("the component exports no function `{name}`").into()),
    }
}

async fn run_command(
    command: &CommandPre<Host>,
    store: &mut Store<Host>,
) -> wasmtime::Result<Exit> {
    let instance = command.instantiate_async(&mut *store).await?;
    Ok(match instance.wasi_cli_run().call_run(store).await? {
        Ok(()) => Exit::Code(0),
        Err(()) => Exit::Code(1),
    })
}

async fn call(
    linked: &InstancePre<Host>,
    store: &mut Store<Host>,
    index: &ComponentExportIndex,
    results: usize,
) -> wasmtime::Result<Exit> {
    let instance = linked.instantiate_async(&mut *store).await?;
    let Some(function) = instance.get_func(&mut *store, index) else {
        wasmtime::bail!("the component's function is gone");
    };
    let mut results = vec![Val::Bool(false); results];
    function.call_async(store, &[], &mut results).await?;
    Ok(Exit::Code(0))
}
