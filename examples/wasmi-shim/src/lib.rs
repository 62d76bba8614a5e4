//! A custom engine: the wasmi interpreter, for modules that use WASI preview 1.

use shimwright_core::{BoxError, Engine, Exit, Limit, Options, Workload, forbid_new_code};
use wasmi::{Linker, Module, Store};
use wasmi_wasi::{Dir, WasiCtx, WasiCtxBuilder, add_to_linker, ambient_authority};

/// Interprets modules. Nothing is compiled ahead of time.
pub struct Wasmi {
    engine: wasmi::Engine,
}

impl Wasmi {
    /// The engine, which has no options.
    pub fn new(_options: &Options) -> Result<Self, BoxError> {
        let engine = wasmi::Engine::default();
        Ok(Self { engine })
    }
}

impl Engine for Wasmi {
    fn enforced_limits(&self) -> &[Limit] {
        // Its guests have no sockets to connect with, and nothing to look names up.
        &[Limit::Outbound, Limit::NameLookup]
    }

    fn run(&self, workload: &Workload) -> Result<Exit, BoxError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.inherit_stdio();
        wasi.args(workload.args())?.envs(workload.env())?;
        for preopen in workload.preopens() {
            let directory = Dir::open_ambient_dir(preopen.host(), ambient_authority())?;
            wasi.preopened_dir(directory, preopen.guest())?;
        }
        let mut store = Store::new(&self.engine, wasi.build());

        let module = Module::new(&self.engine, workload.wasm()?)?;
        forbid_new_code()?;
        let mut linker = Linker::<WasiCtx>::new(&self.engine);
        add_to_linker(&mut linker, |wasi| wasi)?;
        let instance = linker.instantiate_and_start(&mut store, &module)?;
        let entry = instance
            .get_typed_func::<(), ()>(&store, workload.function())
            .map_err(|error| format!("cannot call {}: {error}", workload.function()))?;
        let initialize = instance.get_typed_func::<(), ()>(&store, "_initialize");

        let initialized = initialize.map_or(Ok(()), |function| function.call(&mut store, ()));
        let Err(error) = initialized.and_then(|()| entry.call(&mut store, ())) else {
            return Ok(Exit::Code(0));
        };
        match error.i32_exit_status() {
            Some(code) => Ok(Exit::Code(code)),
            None => Ok(Exit::Trap(error.to_string())),
        }
    }
}
