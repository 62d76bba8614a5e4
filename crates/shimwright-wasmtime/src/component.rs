//! Components: commands of WASI 0.2 and 0.3, exported functions, and what [`crate::http`] serves.

use std::os::unix::fs::FileExt;

use shimwright_core::{Artifact, BoxError, DEFAULT_FUNCTION, Exit, Workload};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentExportIndex, InstancePre, Linker, ResourceTable, Val,
};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::{self, bindings::CommandPre};
#[cfg(feature = "p3")]
use wasmtime_wasi::p3;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::limits::Limits;
use crate::outgoing::Outgoing;
use crate::wasi;

/// What the guest's imports work on.
pub(crate) struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    table: ResourceTable,
    limits: Limits,
}

impl Host {
    /// A store for an instance that has this.
    pub(crate) fn store(engine: &Engine, wasi: WasiCtx, limits: &Limits) -> Store<Self> {
        let host = Self {
            wasi,
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(limits.reach.clone()),
            table: ResourceTable::new(),
            limits: limits.clone(),
        };
        let mut store = Store::new(engine, host);
        store.limiter(|host| &mut host.limits);
        store
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// What a workload asks of its component.
pub(crate) enum Entry {
    /// To run once.
    Run(Run),
    /// To answer requests.
    Serve(ProxyPre<Host>),
}

/// How a component is run once.
pub(crate) enum Run {
    /// By `wasi:cli/run` 0.2.
    Command(CommandPre<Host>),
    /// By `wasi:cli/run` 0.3.
    #[cfg(feature = "p3")]
    Command3(p3::bindings::CommandPre<Host>),
    /// By a function of its own.
    Function {
        linked: InstancePre<Host>,
        index: ComponentExportIndex,
        results: usize,
    },
}

/// A component that may be loaded more than once, although its artifact is handed over once.
pub(crate) enum Code<'a> {
    /// Output of this engine's precompiler. Only [`read`](Self::read) makes one.
    Native(Vec<u8>),
    Wasm(&'a [u8]),
}

impl<'a> Code<'a> {
    /// Reads the workload's component.
    ///
    /// Native code is copied to private memory. Wasmtime 48 maps an open file for modules only; for
    /// components it wants a path, and in a container the artifact has none.
    pub(crate) fn read(workload: &'a Workload) -> Result<Self, BoxError> {
        Ok(match workload.artifact() {
            Artifact::Precompiled(precompiled) => {
                let file = precompiled.take_file()?;
                let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
                file.read_exact_at(&mut bytes, 0)?;
                Self::Native(bytes)
            }
            _ => Self::Wasm(workload.wasm()?),
        })
    }

    /// Loads or compiles the component.
    pub(crate) fn load(&self, engine: &Engine) -> Result<Component, BoxError> {
        match self {
            Self::Native(bytes) => {
                #[expect(
                    unsafe_code,
                    reason = "the loader of native code; only `Precompiled` gets here"
                )]
                // SAFETY: the bytes must be output of `Engine::precompile_component`. `read` takes
                // them from a `Precompiled`, which is made only of this engine's own output, and
                // nobody else has them. Output of another version or for another machine is refused
                // by Wasmtime.
                let component = unsafe { Component::deserialize(engine, bytes) };
                Ok(component?)
            }
            Self::Wasm(wasm) => Ok(Component::new(engine, wasm)?),
        }
    }
}

/// Finds what the workload asks for: what is of WASI 0.3 comes before what is of 0.2, and of each a
/// command that also handles requests is run as a command.
pub(crate) fn entry(component: &Component, workload: &Workload) -> Result<Entry, BoxError> {
    let linked = link(component)?;
    if workload.function() != DEFAULT_FUNCTION {
        let (index, results) = find(component, workload)?;
        return Ok(Entry::Run(Run::Function {
            linked,
            index,
            results,
        }));
    }
    // Toolchains for 0.2 add a `run` of 0.2 to what is written for 0.3, and that one only traps.
    #[cfg(feature = "p3")]
    {
        if let Ok(command) = p3::bindings::CommandPre::new(linked.clone()) {
            return Ok(Entry::Run(Run::Command3(command)));
        }
        if let Ok(service) = wasmtime_wasi_http::p3::bindings::ServicePre::new(linked.clone()) {
            return Ok(Entry::Serve(ProxyPre::P3(service)));
        }
    }
    let error = match CommandPre::new(linked.clone()) {
        Ok(command) => return Ok(Entry::Run(Run::Command(command))),
        Err(error) => error,
    };
    match wasmtime_wasi_http::p2::bindings::ProxyPre::new(linked) {
        Ok(proxy) => Ok(Entry::Serve(ProxyPre::P2(proxy))),
        Err(_) => Err(format!(
            "the component is neither a command nor a handler of HTTP requests: {error}"
        )
        .into()),
    }
}

/// Finds the component's imports. Of what few components use, only what this one asks for is
/// offered: each interface costs time at every start.
fn link(component: &Component) -> wasmtime::Result<InstancePre<Host>> {
    let engine = component.engine();
    let ty = component.component_type();
    let imports = |part: &str| ty.imports(engine).any(|(name, _)| name.contains(part));
    let mut linker = Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    if imports("wasi:http/") {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    }
    #[cfg(feature = "p3")]
    if imports("@0.3.") {
        p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    linker.instantiate_pre(component)
}

/// Finds the workload's function, and says how many results it has.
fn find(
    component: &Component,
    workload: &Workload,
) -> Result<(ComponentExportIndex, usize), BoxError> {
    let function = |name: &str| match component.get_export(None, name) {
        Some((ComponentItem::ComponentFunc(ty), index)) => Some((ty, index)),
        _ => None,
    };
    workload.calls(|name| Some(function(name)?.0.params().len()))?;
    let (ty, index) = function(workload.function()).ok_or("the function is there no more")?;
    Ok((index, ty.results().len()))
}

/// Runs a component once.
pub(crate) async fn run(engine: &Engine, run: Run, workload: &Workload) -> Result<Exit, BoxError> {
    let wasi = wasi::context(workload)?.build();
    let mut store = Host::store(engine, wasi, &Limits::new(workload));
    let result = match run {
        Run::Command(command) => run_command(&command, &mut store).await,
        #[cfg(feature = "p3")]
        Run::Command3(command) => run_command_3(&command, &mut store).await,
        Run::Function {
            linked,
            index,
            results,
        } => call(&linked, &mut store, &index, results).await,
    };
    result.or_else(wasi::ended)
}

async fn run_command(
    command: &CommandPre<Host>,
    store: &mut Store<Host>,
) -> wasmtime::Result<Exit> {
    let instance = wasi::started(command.instantiate_async(&mut *store).await)?;
    Ok(code(instance.wasi_cli_run().call_run(store).await?))
}

#[cfg(feature = "p3")]
async fn run_command_3(
    command: &p3::bindings::CommandPre<Host>,
    store: &mut Store<Host>,
) -> wasmtime::Result<Exit> {
    let instance = wasi::started(command.instantiate_async(&mut *store).await)?;
    let result = store
        .run_concurrent(async move |store| instance.wasi_cli_run().call_run(store).await)
        .await??;
    Ok(code(result))
}

/// `wasi:cli/run` knows success and failure.
fn code(result: Result<(), ()>) -> Exit {
    Exit::Code(i32::from(result.is_err()))
}

async fn call(
    linked: &InstancePre<Host>,
    store: &mut Store<Host>,
    index: &ComponentExportIndex,
    results: usize,
) -> wasmtime::Result<Exit> {
    let instance = wasi::started(linked.instantiate_async(&mut *store).await)?;
    let Some(function) = instance.get_func(&mut *store, index) else {
        wasmtime::bail!("the component's function is gone");
    };
    let mut results = vec![Val::Bool(false); results];
    function.call_async(store, &[], &mut results).await?;
    Ok(Exit::Code(0))
}
