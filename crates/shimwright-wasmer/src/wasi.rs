//! A workload as a WASI environment, and the ways in which WASI ends one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use shimwright_core::{BoxError, Exit, Refusal, Workload};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use virtual_fs::MountFileSystem;
use wasmer::{Engine, InstantiationError, LinkError, MemoryError, RuntimeError, Store};
use wasmer_types::ImportError;
use wasmer_wasix::runtime::TaintReason;
use wasmer_wasix::runtime::resolver::{MultiSource, Source};
use wasmer_wasix::runtime::task_manager::tokio::TokioTaskManager;
use wasmer_wasix::virtual_fs::{self, FsError, VirtualFile, host_fs};
use wasmer_wasix::virtual_net::DynVirtualNetworking;
use wasmer_wasix::{
    Runtime, VirtualTaskManager, WasiEnvBuilder, WasiError, WasiRuntimeError, WasiThreadError,
};

use crate::network::Reach;

/// What the workload may see: its arguments, environment, preopens, standard streams and the
/// container's network.
///
/// Inside of a tokio runtime.
pub(crate) fn builder(host: Arc<Host>, workload: &Workload) -> Result<WasiEnvBuilder, BoxError> {
    let files = MountFileSystem::new();
    // The first argument is given to the constructor.
    let (name, args) = workload
        .args()
        .split_first()
        .ok_or("there is no argument")?;
    let mut builder = WasiEnvBuilder::new(name)
        .args(args)
        .envs(workload.env().iter().cloned())
        .stdout(Box::new(Output::new(io::stdout())?))
        .stderr(Box::new(Output::new(io::stderr())?))
        // Wasmer's own shell commands; a guest has what is in its image.
        .disable_default_builtins(true);
    for preopen in workload.preopens() {
        let cannot = |error: FsError| {
            format!(
                "cannot open the directory {}: {error}",
                preopen.host().display()
            )
        };
        let directory = host_fs::FileSystem::new(Handle::current(), preopen.host());
        files
            .mount(preopen.guest(), Arc::new(directory.map_err(cannot)?))
            .map_err(cannot)?;
        // What can be written is decided by the mounts below it.
        builder.add_preopen_dir(preopen.guest())?;
    }
    builder.set_mount_fs(files);
    // Without it a call that blocks does so on its own thread.
    builder
        .capabilities_mut()
        .threading
        .enable_asynchronous_threading = false;
    builder.set_runtime(host);
    Ok(builder)
}

/// How a guest ended that did not return.
pub(crate) fn exit(error: &RuntimeError) -> Exit {
    match error.downcast_ref() {
        Some(WasiError::Exit(code)) => Exit::Code(code.raw()),
        // The first thread has ended, and with it the guest.
        Some(WasiError::ThreadExit) => Exit::Code(0),
        // An import that the guest called has failed for good, or this is a trap.
        _ => Exit::Trap(reason(error)),
    }
}

/// Why a guest could not be started, unless its own start function ended it.
///
/// The library calls whatever goes wrong here an error of memory access.
pub(crate) fn not_started(error: WasiRuntimeError) -> Result<Exit, BoxError> {
    let WasiRuntimeError::Thread(error) = error else {
        return Err(error.into());
    };
    let failed = match error {
        WasiThreadError::InstanceCreateFailed(failed) => *failed,
        WasiThreadError::MemoryCreateFailed(MemoryError::Generic(reason)) => {
            return Err(reason.into());
        }
        other => return Err(other.into()),
    };
    match failed {
        InstantiationError::Start(error) => Ok(exit(&error)),
        InstantiationError::Link(LinkError::Import(from, name, ImportError::UnknownImport(_))) => {
            Err(Refusal::unknown_import(&from, &name).into())
        }
        InstantiationError::Link(LinkError::Resource(reason)) => Err(reason.into()),
        other => Err(other.into()),
    }
}

fn reason(error: &RuntimeError) -> String {
    let function = error
        .trace()
        .first()
        .and_then(|frame| frame.function_name());
    match function {
        Some(function) => format!("{} in function `{function}`", error.message()),
        None => error.message(),
    }
}

/// What the guest shares with its threads.
///
/// Wasmer's own offers more: a registry of packages, a cache of modules and an HTTP client.
#[derive(Debug)]
pub(crate) struct Host {
    engine: Engine,
    handle: Handle,
    tasks: Arc<dyn VirtualTaskManager>,
    reach: Reach,
    /// Made when first asked for, as it comes with a thread.
    network: OnceLock<DynVirtualNetworking>,
    source: Arc<MultiSource>,
    trap: Mutex<Option<String>>,
}

impl Host {
    /// Inside of a tokio runtime.
    pub(crate) fn new(engine: Engine, reach: Reach) -> Self {
        let handle = Handle::current();
        Self {
            engine,
            tasks: Arc::new(TokioTaskManager::new(handle.clone())),
            handle,
            reach,
            network: OnceLock::new(),
            source: Arc::default(),
            trap: Mutex::default(),
        }
    }

    /// Why a thread of the guest's, other than its first, has trapped.
    pub(crate) fn trap(&self) -> Option<String> {
        let trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        trap.clone()
    }
}

impl Runtime for Host {
    fn networking(&self) -> &DynVirtualNetworking {
        self.network.get_or_init(|| {
            let _entered = self.handle.enter();
            self.reach.network()
        })
    }

    fn task_manager(&self) -> &Arc<dyn VirtualTaskManager> {
        &self.tasks
    }

    fn source(&self) -> Arc<dyn Source + Send + Sync> {
        self.source.clone()
    }

    fn engine(&self) -> Engine {
        self.engine.clone()
    }

    fn new_store(&self) -> Store {
        Store::new(self.engine.clone())
    }

    fn on_taint(&self, why: TaintReason) {
        if let TaintReason::RuntimeError(error) = why {
            let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
            trap.get_or_insert_with(|| reason(&error));
        }
    }
}

/// A standard stream that is written to at once and by the thread that writes, so that nothing is
/// lost if the process ends by a signal.
#[derive(Debug)]
struct Output(File);

impl Output {
    fn new(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self(File::from(stream.as_fd().try_clone_to_owned()?)))
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl AsyncSeek for Output {
    fn start_seek(self: Pin<&mut Self>, _: io::SeekFrom) -> io::Result<()> {
        Err(io::ErrorKind::NotSeekable.into())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Err(io::ErrorKind::NotSeekable.into()))
    }
}

impl VirtualFile for Output {
    fn last_accessed(&self) -> u64 {
        0
    }

    fn last_modified(&self) -> u64 {
        0
    }

    fn created_time(&self) -> u64 {
        0
    }

    fn size(&self) -> u64 {
        0
    }

    fn set_len(&mut self, _: u64) -> virtual_fs::Result<()> {
        Err(FsError::NotAFile)
    }

    fn unlink(&mut self) -> virtual_fs::Result<()> {
        Err(FsError::NotAFile)
    }

    fn poll_read_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    fn poll_write_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(8192))
    }
}
