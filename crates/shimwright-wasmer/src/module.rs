//! Core modules: compiling, loading and calling them.

use std::convert::Infallible;
use std::sync::Arc;

use shimwright_core::{Artifact, BoxError, Exit, Precompiled, Workload};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wasmer::{Engine, ExternType, Module};
use wasmer_wasix::wasmer_wasix_types::wasi::Errno;
use wasmer_wasix::{Runtime, WasiEnvBuilder, WasiProcess};

use crate::config;
use crate::network::Reach;
use crate::wasi::{self, Host};

/// Compiles a module to what [`load`] takes.
pub(crate) fn precompile(wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
    let module = Module::new(&config::for_compiling(), wasm)?;
    Ok(module.serialize()?.to_vec())
}

/// The module of a workload and the engine that runs it, if it has the function to call.
pub(crate) fn load(workload: &Workload) -> Result<(Engine, Module), BoxError> {
    let (engine, module) = match workload.artifact() {
        Artifact::Precompiled(precompiled) => {
            let engine = config::for_loading(workload.linear_memory());
            let module = deserialize(&engine, precompiled)?;
            (engine, module)
        }
        _ => {
            let engine = config::for_compiling_in_place(workload.linear_memory());
            let module = Module::new(&engine, workload.wasm()?)?;
            (engine, module)
        }
    };
    check(&module, workload.function())?;
    Ok((engine, module))
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

/// Says early, and without running anything, that the function cannot be called.
fn check(module: &Module, function: &str) -> Result<(), BoxError> {
    let export = module.exports().find(|export| export.name() == function);
    let Some(export) = export else {
        return Err(format!("the module exports no function `{function}`").into());
    };
    let ExternType::Function(ty) = export.ty() else {
        return Err(format!("the module's export `{function}` is not a function").into());
    };
    match ty.params().len() {
        0 => Ok(()),
        n => Err(format!("the function `{function}` needs {n} parameters, but gets none").into()),
    }
}

/// Runs the workload's function, with `_initialize` before it if there is one.
///
/// The guest's first thread is one of its own, because a thread that the guest has started may end
/// it while the first computes.
pub(crate) async fn run(
    (engine, module): (Engine, Module),
    workload: &Workload,
) -> Result<Exit, BoxError> {
    let host = Arc::new(Host::new(engine, Reach::new(workload)));
    let guest = Guest {
        host: host.clone(),
        builder: wasi::builder(host.clone(), workload)?,
        module,
        function: workload.function().to_owned(),
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
    function: String,
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
        let exit = match instance.exports.get_function(&self.function) {
            Ok(function) => Ok(match function.call(&mut store, &[]) {
                Ok(_) => Exit::Code(0),
                Err(error) => wasi::exit(&error),
            }),
            Err(error) => Err(error.into()),
        };
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
