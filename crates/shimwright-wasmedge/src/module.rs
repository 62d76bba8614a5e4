//! Core modules: compiling, loading and calling them with the library.

use std::collections::HashMap;
use std::path::Path;

use shimwright_core::{Artifact, BoxError, Exit, LinearMemory, Refusal, Workload};
use wasmedge_sdk::config::{
    CommonConfigOptions, CompilerConfigOptions, Config, ConfigBuilder, RuntimeConfigOptions,
};
use wasmedge_sdk::error::{CoreError, WasmEdgeError};
use wasmedge_sdk::plugin::{PluginInstance, PluginManager};
use wasmedge_sdk::utils::CoreVersion;
use wasmedge_sdk::vm::SyncInst;
use wasmedge_sdk::wasi::WasiModule;
use wasmedge_sdk::{
    AsInstance, Compiler, CompilerOptimizationLevel, CompilerOutputFormat, ExternalInstanceType,
    LogManager, Module, RunMode, Store, Vm,
};

use crate::config::{self, Optimization, Settings};
use crate::{proposals, stack, wasm};

/// What compiled code begins with. It is a WebAssembly binary with native code in it, which by
/// itself would look like one of an image.
const MAGIC: &[u8; 8] = b"WasmEdge";

/// Checks the library, and loads the plug-ins of the node.
pub(crate) fn load(settings: &Settings) -> Result<(), BoxError> {
    let found = CoreVersion::version_string();
    if found != config::VERSION {
        return Err(format!("libwasmedge is {found} instead of {}", config::VERSION).into());
    }
    LogManager::log_off();
    for plugin in &settings.plugins {
        // It does not say whether it has found anything.
        PluginManager::load(Some(Path::new(plugin.file())))?;
        if PluginManager::find(plugin.name()).is_err() {
            return Err(format!(
                "cannot load the plug-in {}: there is no usable {} among the engine's libraries",
                plugin.name(),
                plugin.file()
            )
            .into());
        }
    }
    Ok(())
}

/// Compiles a module to what [`run`] takes.
pub(crate) fn precompile(settings: &Settings, wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
    LogManager::log_off();
    let level = match settings.optimization {
        Optimization::O0 => CompilerOptimizationLevel::O0,
        Optimization::O2 => CompilerOptimizationLevel::O2,
        Optimization::O3 => CompilerOptimizationLevel::O3,
    };
    let config = ConfigBuilder::new(CommonConfigOptions::default())
        .with_compiler_config(
            // Not interruptible, which is an atomic exchange in every block: a process ends its
            // guest.
            CompilerConfigOptions::new()
                .optimization_level(level)
                .out_format(CompilerOutputFormat::Wasm),
        )
        .build()?;
    proposals::check(wasm)?;
    // Says more than the compiler.
    Module::from_bytes(Some(&config), wasm).map_err(|error| readable(*error))?;
    // It is written by way of some other files. A compiler process has an empty root.
    let temporary = std::env::temp_dir();
    std::fs::create_dir_all(&temporary)?;
    let directory = tempfile::tempdir_in(&temporary)?;
    let compiler = Compiler::new(Some(&config))?;
    let file = compiler.compile_from_bytes(wasm, "module", &directory);
    let file = file.map_err(|error| readable(*error))?;
    let compiled = std::fs::read(file)?;
    Ok([MAGIC, &*compiled].concat())
}

/// Runs the workload's function, and before it what initializes the module.
pub(crate) fn run(settings: &Settings, workload: &Workload) -> Result<Exit, BoxError> {
    // Its lines would be among the guest's output; what they say comes as errors too.
    LogManager::log_off();
    let (config, module) = match workload.artifact() {
        Artifact::Precompiled(precompiled) => {
            load_module(workload.linear_memory(), precompiled.map()?.as_ref())?
        }
        // Never interpreted: nothing bounds how deep the interpreter calls.
        _ => {
            let wasm = wasm::without_native_code(workload.wasm()?)?;
            load_module(workload.linear_memory(), &precompile(settings, &wasm)?)?
        }
    };
    let calls = calls(&module, workload)?;
    shimwright_core::forbid_new_code()?;
    let mut wasi = wasi(workload)?;
    let mut plugins = plugins(settings)?;
    check_imports(&module, &wasi, &plugins)?;
    stack::trap_at_its_end()?;
    let ended = call(&config, module, &calls, &mut wasi, &mut plugins);
    match ended.map_err(|error| *error) {
        // Also the end by `proc_exit`; the code is 0 unless that has set one.
        Ok(()) => Ok(Exit::Code(wasi.exit_code().cast_signed())),
        Err(WasmEdgeError::Core(trap @ (CoreError::Execution(_) | CoreError::Common(_)))) => {
            Ok(Exit::Trap(trap.to_string()))
        }
        Err(other) => Err(readable(other)),
    }
}

/// An error of the library in words, also one that the bindings have only a number for.
fn readable(error: WasmEdgeError) -> BoxError {
    /// `AOTNotImpl` of `enum.inc`.
    const NOT_COMPILED: u32 = 0x0e;
    match error {
        WasmEdgeError::Core(CoreError::UnknownError(NOT_COMPILED)) => {
            "the module has an instruction that WasmEdge's compiler does not have".into()
        }
        WasmEdgeError::Core(CoreError::UnknownError(number)) => {
            format!("WasmEdge refuses the module: its error is number {number:#x}").into()
        }
        other => other.into(),
    }
}

/// Loads what [`precompile`] has made. Native code is executed unchecked, so it must be our own, which
/// is what `Precompiled` stands for.
fn load_module(memory: &LinearMemory, compiled: &[u8]) -> Result<(Config, Module), BoxError> {
    let bytes = compiled.strip_prefix(MAGIC);
    let bytes = bytes.ok_or("not what this engine has compiled")?;
    let mut runtime = RuntimeConfigOptions::default();
    if let Some(pages) = memory.limit_in_pages() {
        // The library limits only how far one grows.
        memory.check_pages(wasm::initial_pages(bytes)?)?;
        runtime = runtime.max_memory_pages(pages);
    }
    let config = ConfigBuilder::new(CommonConfigOptions::default().run_mode(RunMode::Aot))
        .with_runtime_config(runtime)
        .build()?;
    let module = Module::from_bytes(Some(&config), bytes)?;
    Ok((config, module))
}

/// The functions to call, if they can be.
fn calls<'a>(module: &Module, workload: &'a Workload) -> Result<Vec<&'a str>, Refusal> {
    workload.calls(|name| match module.get_export(name) {
        Some(ExternalInstanceType::Func(ty)) => Some(ty.args_len()),
        _ => None,
    })
}

/// Names the function that is not there, as the library says only that there is one.
fn check_imports(
    module: &Module,
    wasi: &WasiModule,
    plugins: &[PluginInstance],
) -> Result<(), BoxError> {
    let offered: HashMap<String, Vec<String>> = std::iter::once(wasi.as_ref())
        .chain(plugins)
        .map(|instance| {
            let name = instance.name().unwrap_or_default();
            (name, instance.func_names().unwrap_or_default())
        })
        .collect();
    for import in module.imports() {
        let (from, name) = (import.module_name(), import.name());
        let is_offered = offered
            .get(&*from)
            .is_some_and(|names| names.iter().any(|offered| *offered == name));
        if !is_offered {
            return Err(Refusal::unknown_import(&from, &name).into());
        }
    }
    Ok(())
}

/// What the workload may see: its arguments, environment, preopens and standard streams.
fn wasi(workload: &Workload) -> Result<WasiModule, BoxError> {
    let env: Vec<String> = workload
        .env()
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let preopens = workload
        .preopens()
        .iter()
        .map(|preopen| {
            // The two paths are separated by a colon, and nothing can quote one.
            let host = preopen.host().to_str();
            let host = host.filter(|host| !host.contains(':') && !preopen.guest().contains(':'));
            let host = host.ok_or_else(|| format!("cannot hand on {preopen:?}"))?;
            Ok(format!("{}:{host}", preopen.guest()))
        })
        .collect::<Result<Vec<String>, BoxError>>()?;
    // The bindings would panic.
    let texts = || workload.args().iter().chain(&env).chain(&preopens);
    if texts().any(|text| text.contains('\0')) {
        return Err("an argument, a variable or a path holds a NUL".into());
    }
    Ok(WasiModule::create(
        Some(workload.args().iter().map(String::as_str).collect()),
        Some(env.iter().map(String::as_str).collect()),
        Some(preopens.iter().map(String::as_str).collect()),
    )?)
}

/// The modules of the plug-ins, which [`load`] has loaded.
fn plugins(settings: &Settings) -> Result<Vec<PluginInstance>, BoxError> {
    settings
        .plugins
        .iter()
        .map(|plugin| {
            let name = plugin.name();
            Ok(PluginManager::create_plugin_instance(name, name)?)
        })
        .collect()
}

fn call(
    config: &Config,
    module: Module,
    names: &[&str],
    wasi: &mut WasiModule,
    plugins: &mut [PluginInstance],
) -> Result<(), Box<WasmEdgeError>> {
    let [initializers @ .., function] = names else {
        return Ok(());
    };
    let instances = std::iter::once(wasi.as_mut()).chain(plugins);
    let instances: HashMap<String, &mut dyn SyncInst> = instances
        .map(|instance| {
            let name = instance.name().unwrap_or_default();
            let instance: &mut dyn SyncInst = instance;
            (name, instance)
        })
        .collect();
    let mut vm = Vm::new(Store::new(Some(config), instances)?);
    let guest = Some(wasm::GUEST);
    vm.register_module(guest, module)?;
    // The end by `proc_exit` in the start section is no error: there is an instance without exports.
    let store = vm.store_mut();
    let is_started = store
        .get_named_wasm_and_executor(wasm::GUEST)
        .is_some_and(|(instance, _)| instance.get_func(function).is_ok());
    if !is_started {
        return Ok(());
    }
    if !initializers.is_empty() {
        // The end by `proc_exit` is no error to the bindings, and nothing else either.
        vm.register_module(None, Module::from_bytes(Some(config), wasm::INITIALIZER)?)?;
        vm.run_func(None, wasm::INITIALIZER_RUN, [])?;
        let returned = vm
            .active_module()
            .map(|initializer| initializer.get_global(wasm::INITIALIZER_RETURNED))
            .transpose()?;
        if returned.is_none_or(|returned| returned.get_value().to_i32() == 0) {
            return Ok(());
        }
    }
    vm.run_func(guest, function, [])?;
    Ok(())
}
