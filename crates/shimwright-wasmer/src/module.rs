//! Core modules: compiling, loading and calling them.

use std::convert::Infallible;
use std::sync::Arc;

use shimwright_core::{Artifact, BoxError, Exit, Precompiled, Refusal, Workload};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmer::{Engine, ExternType, Instance, Module, Store};
use wasmer_wasix::wasmer_wasix_types::wasi::Errno;
use wasmer_wasix::{Runtime, WasiEnvBuilder, WasiProcess};

use crate::config;
use crate::network::Reach;
use crate::prepare::{self, prepare};
use crate::wasi::{self, Host};

/// Compiles a module to what [`load`] takes.
pub(crate) fn precompile(wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
    let module = Module::new(&config::for_compiling(), prepare(wasm)?)?;
    Ok(module.serialize()?.to_vec())
}

/// A module that can be run.
pub(crate) struct Loaded {
    engine: Engine,
    module: Module,
    functions: Vec<String>,
}

/// The module of a workload and the engine that runs it, if it has the function to call.
pub(crate) fn load(workload: &Workload) -> Result<Loaded, BoxError> {
    let (engine, module) = match workload.artifact() {
        Artifact::Precompiled(precompiled) => {
            let engine = config::for_loading(workload.linear_memory());
            let module = deserialize(&engine, precompiled)?;
            (engine, module)
        }
        _ => {
            let engine = config::for_compiling_in_place(workload.linear_memory());
            let module = Module::new(&engine, prepare(workload.wasm()?)?)?;
            (engine, module)
        }
    };
    Ok(Loaded {
        functions: functions(&module, workload)?,
        engine,
        module,
    })
}

/// Loads a module that was compiled earlier.
///
/// The file is mapped, but Wasmer copies code to private memory.
fn deserialize(engine: &Engine, precompiled: &Precompiled) -> Result<Module, BoxError> {
    let native = bytes::Bytes::from_owner(precompiled.map()?);
    #[expect(
        unsafe_code,
        reason = "the loader of native code; only `Precompiled` gets here"
    )]
    // SAFETY: the bytes must be output of `Module::serialize` for this machine. `Precompiled` is
    // made only of this engine's own output, and its key holds the fingerprint.
    let module = unsafe { Module::deserialize(engine, native) };
    Ok(module?)
}

/// The functions to call, one after the other, if they can be: the module's start function, and what
/// the workload asks for.
fn functions(module: &Module, workload: &Workload) -> Result<Vec<String>, Refusal> {
    let export = |name: &str| module.exports().find(|export| export.name() == name);
    let calls = workload.calls(|name| match export(prepare::exported(name))?.ty() {
        ExternType::Function(ty) => Some(ty.params().len()),
        _ => None,
    })?;
    let calls = calls.into_iter().map(prepare::exported);
    let start = export(prepare::START).map(|_| prepare::START);
    Ok(start.into_iter().chain(calls).map(str::to_owned).collect())
}

/// Runs the workload's function, and before it what it needs.
///
/// The guest's first thread is one of its own, because a thread that the guest has started may end
/// it while the first computes.
pub(crate) async fn run(loaded: Loaded, workload: &Workload) -> Result<Exit, BoxError> {
    let Loaded {
        engine,
        module,
        functions,
    } = loaded;
    let host = Arc::new(Host::new(engine, Reach::new(workload)));
    let guest = Guest {
        host: host.clone(),
        builder: wasi::builder(host.clone(), workload)?,
        module,
        functions,
    };
    let (tell_process, process) = oneshot::channel();
    let (tell_exit, exit) = oneshot::channel();
    let (written, all_is_written) = oneshot::channel::<Infallible>();
    let runtime = Handle::current();
    std::thread::Builder::new()
        .name("guest".to_owned())
        .spawn(move || {
            let _entered = runtime.enter();
            guest.run(tell_process, tell_exit);
            drop(written);
        })?;
    tokio::select! {
        biased;
        exit = exit => {
            let exit = exit.unwrap_or_else(|_| Err("the engine has panicked".into()));
            // Nothing is ever sent: the sender is dropped, also by a panic.
            let _ = all_is_written.await;
            exit
        }
        exit = ended_by_another_thread(process, &host) => Ok(exit),
    }
}

/// Waits for a thread of the guest's, other than its first, to end all of it.
async fn ended_by_another_thread(process: oneshot::Receiver<WasiProcess>, host: &Host) -> Exit {
    let Ok(process) = process.await else {
        // The guest has not been started, which is told.
        return std::future::pending().await;
    };
    let end = process.join().await;
    match (host.trap(), end) {
        (Some(trap), _) => Exit::Trap(trap),
        (None, Ok(code)) => Exit::Code(code.raw()),
        (None, Err(error)) => Exit::Trap(error.to_string()),
    }
}

/// A guest that has not been started.
struct Guest {
    host: Arc<Host>,
    builder: WasiEnvBuilder,
    module: Module,
    functions: Vec<String>,
}

impl Guest {
    fn run(
        self,
        tell_process: oneshot::Sender<WasiProcess>,
        tell_exit: oneshot::Sender<Result<Exit, BoxError>>,
    ) {
        let mut store = self.host.new_store();
        // Whoever is told may be gone: another thread has ended the guest.
        let (instance, env) = match self.builder.instantiate(self.module, &mut store) {
            Ok(started) => started,
            Err(error) => {
                let _ = tell_exit.send(wasi::not_started(error));
                return;
            }
        };
        let process = env.data(&store).process.clone();
        let _ = tell_process.send(process.clone());
        let exit = call(&instance, &mut store, &self.functions);
        // If another thread has ended the guest, this one was only told to end.
        let exit = match process.try_join() {
            None => exit,
            Some(Ok(code)) => Ok(Exit::Code(code.raw())),
            Some(Err(error)) => Ok(Exit::Trap(error.to_string())),
        };
        let _ = tell_exit.send(exit);
        // Some of what was written to files is on its way still.
        env.data(&store)
            .blocking_on_exit(Some(Errno::Success.into()));
    }
}

/// Calls functions until one does not return.
fn call(instance: &Instance, store: &mut Store, functions: &[String]) -> Result<Exit, BoxError> {
    for name in functions {
        if let Err(error) = instance.exports.get_function(name)?.call(store, &[]) {
            return Ok(wasi::exit(&error));
        }
    }
    Ok(Exit::Code(0))
}
