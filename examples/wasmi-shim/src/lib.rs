//! A custom engine: the wasmi interpreter, for modules that use WASI preview 1.

use shimwright_core::{
    BoxError, Engine, Exit, Limit, Options, Validator, Workload, forbid_new_code,
};
use wasmi::{Linker, Module, Store, errors::ErrorKind};
use wasmi_wasi::{Dir, WasiCtx, WasiCtxBuilder, add_to_linker, ambient_authority};

/// Interprets modules. Nothing is compiled ahead of time.
pub struct Wasmi(wasmi::Engine);

impl Wasmi {
    /// The engine, which has no options.
    pub fn new(_options: &Options) -> Result<Self, BoxError> {
        Ok(Self(wasmi::Engine::default()))
    }
}

impl Validator for Wasmi {
    fn validate(&self, wasm: &[u8]) -> Result<(), BoxError> {
        Ok(Module::validate(&self.0, wasm)?)
    }
}

impl Engine for Wasmi {
    fn validator(&self) -> Option<&dyn Validator> {
        Some(self)
    }

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
        let mut store = Store::new(&self.0, wasi.build());

        let module = Module::new(&self.0, workload.wasm()?)?;
        forbid_new_code()?;
        let mut linker = Linker::<WasiCtx>::new(&self.0);
        add_to_linker(&mut linker, |wasi| wasi)?;
        let calls = workload.calls(|name| Some(module.get_export(name)?.func()?.params().len()))?;

        let instance = linker.instantiate_and_start(&mut store, &module);
        let ended = instance.and_then(|instance| {
            calls.iter().try_for_each(|name| {
                let function = instance.get_typed_func::<(), ()>(&store, name)?;
                function.call(&mut store, ())
            })
        });
        let Err(error) = ended else {
            return Ok(Exit::Code(0));
        };
        match error.i32_exit_status() {
            Some(code) => Ok(Exit::Code(code)),
            None if matches!(error.kind(), ErrorKind::Linker(_)) => Err(error.into()),
            None => Ok(Exit::Trap(error.to_string())),
        }
    }
}
