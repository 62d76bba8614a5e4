//! A custom engine for applications: components that run one after the other, interpreted by wasmi.

mod manifest;

use shimwright_core::{
    Application, ApplicationFormat, Applications, Artifact, BoxError, Engine, Exit, Limit,
    Manifest, Options, Plan, Precompiler, Workload, forbid_new_code,
};
use wasmi::{Linker, Module, Store};
use wasmi_wasi::wasi_common::pipe::{ReadPipe, WritePipe};
use wasmi_wasi::{Dir, WasiCtx, WasiCtxBuilder, add_to_linker, ambient_authority};

use manifest::{INPUT, Pipeline};

/// Runs pipelines, and single modules as pipelines of one stage.
pub struct Pipelines {
    engine: wasmi::Engine,
}

impl Pipelines {
    /// The engine, which has no options.
    pub fn new(_options: &Options) -> Result<Self, BoxError> {
        let engine = wasmi::Engine::default();
        Ok(Self { engine })
    }

    /// Runs one module with these arguments. Without an input it reads the container's, and without
    /// an output it writes to the container's.
    fn stage<P>(
        &self,
        artifact: &Artifact,
        args: &[String],
        workload: &Workload<P>,
        input: Option<Vec<u8>>,
        output: Option<&WritePipe<std::io::Cursor<Vec<u8>>>>,
    ) -> Result<Exit, BoxError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.inherit_stdio().args(args)?.envs(workload.env())?;
        if let Some(input) = input {
            wasi.stdin(Box::new(ReadPipe::from(input)));
        }
        if let Some(output) = output {
            wasi.stdout(Box::new(output.clone()));
        }
        for preopen in workload.preopens() {
            let directory = Dir::open_ambient_dir(preopen.host(), ambient_authority())?;
            wasi.preopened_dir(directory, preopen.guest())?;
        }
        let mut store = Store::new(&self.engine, wasi.build());
        let module = match artifact {
            Artifact::Precompiled(checked) => Module::new(&self.engine, checked.map()?.as_ref())?,
            other => Module::new(&self.engine, other.wasm()?)?,
        };
        let mut linker = Linker::<WasiCtx>::new(&self.engine);
        add_to_linker(&mut linker, |wasi| wasi)?;
        let instance = linker.instantiate_and_start(&mut store, &module)?;
        let entry = instance.get_typed_func::<(), ()>(&store, workload.function())?;
        let Err(error) = entry.call(&mut store, ()) else {
            return Ok(Exit::Code(0));
        };
        Ok(match error.i32_exit_status() {
            Some(code) => Exit::Code(code),
            None => Exit::Trap(error.to_string()),
        })
    }
}

impl Engine for Pipelines {
    fn run(&self, workload: &Workload) -> Result<Exit, BoxError> {
        forbid_new_code()?;
        self.stage(workload.artifact(), workload.args(), workload, None, None)
    }

    fn enforced_limits(&self) -> &[Limit] {
        // Its guests have no sockets to connect with, and nothing to look names up.
        &[Limit::Outbound, Limit::NameLookup]
    }

    fn precompiler(&self) -> Option<&dyn Precompiler> {
        Some(self)
    }

    fn applications(&self) -> Option<&dyn Applications> {
        Some(self)
    }
}

/// An interpreter has nothing to compile. It checks each component once for the node, so that one
/// that is not valid fails the create, and containers share the pages of the file in the cache.
impl Precompiler for Pipelines {
    fn fingerprint(&self) -> String {
        "checked by wasmi 2".to_owned()
    }

    fn precompile(&self, wasm: &[u8]) -> Result<Vec<u8>, BoxError> {
        Module::new(&self.engine, wasm)?;
        Ok(wasm.to_vec())
    }
}

impl Applications for Pipelines {
    fn format(&self) -> ApplicationFormat {
        ApplicationFormat {
            manifest_paths: &["/pipeline.json"],
            manifest_types: &["application/vnd.shimwright.pipeline.v1+json"],
            component_types: &["application/vnd.wasm.content.layer.v1+wasm"],
            file_types: &["application/vnd.wasm.content.layer.v1+data"],
        }
    }

    fn plan(&self, manifest: &Manifest, env: &[(String, String)]) -> Result<Plan, BoxError> {
        Pipeline::parse(manifest, env)?.plan()
    }

    fn run(&self, workload: &Workload<Application>) -> Result<Exit, BoxError> {
        forbid_new_code()?;
        let application = workload.application();
        let stages = Pipeline::parse(application.manifest(), workload.env())?.stages;
        let mut input = application.file(INPUT).map(<[u8]>::to_vec);
        let mut left = application.components().len();
        for (stage, component) in stages.into_iter().zip(application.components()) {
            left -= 1;
            let args = [vec![stage.name], stage.args].concat();
            let output = (left > 0).then(WritePipe::new_in_memory);
            let artifact = component.artifact();
            let exit = self.stage(artifact, &args, workload, input.take(), output.as_ref())?;
            if exit != Exit::Code(0) {
                return Ok(exit);
            }
            let written = output.map(WritePipe::try_into_inner).transpose();
            let written = written.map_err(|_| "the output of a stage is still open")?;
            input = written.map(std::io::Cursor::into_inner);
        }
        Ok(Exit::Code(0))
    }
}
