//! `cargo xtask demo`: a WebAssembly program under containerd, on a machine that has neither.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use shimwright_engines::DEFAULT;
use shimwright_testenv::containerd::{Containerd, Release};
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result};
use shimwright_testenv::image::{Entry, Image};
use shimwright_testenv::process;

use crate::cargo;
use crate::guests;

const IMAGE: &str = "demo.invalid/app:1";
const ID: &str = "demo";

/// A server may be watched for a while; Ctrl-C ends it sooner.
const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A program of yours and its arguments; without one a guest of the tests greets you
    #[arg(value_name = "APP.WASM", trailing_var_arg = true)]
    app: Vec<PathBuf>,
}

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    debian::require_root("demo")?;
    let (app, args) = match options.app.split_first() {
        Some((app, args)) => (Some(app), args),
        None => (None, &[][..]),
    };
    // Before a long build, because the path may be mistyped.
    let wasm = app.map(|path| read(path)).transpose()?;

    debian::install_missing()?;
    println!("==> building {}", DEFAULT.shim);
    let shims = cargo::build_binaries(&[DEFAULT.shim])?;
    let (name, wasm) = match (app, wasm) {
        (Some(path), Some(wasm)) => (
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            wasm,
        ),
        _ => ("hello.wasm".to_owned(), sample()?),
    };

    let code = run(&shims, &name, wasm, args)?;
    println!(
        "\n\
         What to try next:\n  \
         cargo xtask demo your.wasm one two    a program of yours, with arguments\n  \
         cargo xtask test                      every test there is\n  \
         docs/operations.md                    the shim on your own containerd or Kubernetes"
    );
    Ok(if code == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs a program with a containerd of its own, and returns its exit code.
fn run(shims: &Path, name: &str, wasm: Vec<u8>, args: &[PathBuf]) -> Result<i32> {
    println!("==> starting a containerd of our own");
    let containerd = Containerd::start(Release::V1_7, &[shims])?;
    println!("==> packing {name} into an image");
    let entrypoint = format!("/{name}");
    containerd.import(&Image::of_files(
        IMAGE,
        &[entrypoint.as_str()],
        vec![Entry::file(name, wasm)],
    ))?;

    let mut ctr = containerd.ctr_run(DEFAULT.runtime);
    ctr.args(["--rm", IMAGE, ID]);
    if !args.is_empty() {
        ctr.arg(&entrypoint).args(args);
    }
    println!(
        "==> ctr run --rm --runtime={} {IMAGE} {ID}\n",
        DEFAULT.runtime
    );
    let begin = Instant::now();
    let code = process::Process::spawn_as_is(ctr)?.finish(DEADLINE)?.code;
    let milliseconds = begin.elapsed().as_millis();
    println!("\n==> {name} ended with exit code {code} after {milliseconds} ms");
    println!("==> stopping containerd and removing everything it made");
    let ground_is_clean = containerd.ground().await_clean(Duration::from_secs(5));
    drop(containerd);
    ground_is_clean?;
    Ok(code)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).context(format_args!("read {}", path.display()))
}

/// The guest `hello` of our tests.
fn sample() -> Result<Vec<u8>> {
    println!("==> building the sample program");
    let directory = tempfile::tempdir()?;
    guests::export(directory.path())?;
    read(&directory.path().join("hello.wasm"))
}
