//! Builds every guest: C with clang, text with `wat`, and components from the resulting modules.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use wasi_preview1_component_adapter_provider as preview1;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

type Error = Box<dyn std::error::Error>;

/// What clang needs to build a guest, as Debian names it.
const PACKAGES: &str = "clang lld wasi-libc libclang-rt-14-dev-wasm32";

/// Commands that exist as components too.
const COMMANDS: &[&str] = &[
    "args",
    "cat",
    "env",
    "exit-code",
    "files",
    "hello",
    "idle",
    "streams",
    "trap",
];

/// Guests that are built as a library with functions, not as a command, by the names of their
/// worlds.
const REACTORS: &[(&str, &str)] = &[("http", "http"), ("reactor", "reactor")];

/// Guests whose imports or exports exist only in components, by the names of their worlds.
const COMPONENTS_ONLY: &[(&str, &str)] = &[
    ("command-0.3", "command-three"),
    ("exit-with-code", "exit-with-code"),
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=guests");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let mut sources: Vec<PathBuf> = fs::read_dir("guests")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, Error>>()?;
    sources.sort();
    for source in &sources {
        let name = source
            .file_stem()
            .and_then(OsStr::to_str)
            .ok_or("a guest without a name")?;
        let module = out.join(format!("{name}.wasm"));
        match source.extension().and_then(OsStr::to_str) {
            Some("c") => compile(source, &module, is_reactor(name))?,
            Some("wat") => fs::write(&module, wat::parse_file(source)?)?,
            _ => {}
        }
    }

    let commands = COMMANDS.iter().map(|name| (name, None));
    let reactors = REACTORS.iter().map(|(name, world)| (name, Some(*world)));
    let others = COMPONENTS_ONLY
        .iter()
        .map(|(name, world)| (name, Some(*world)));
    for (name, world) in commands.chain(reactors).chain(others) {
        let module = fs::read(out.join(format!("{name}.wasm")))?;
        let adapter = if is_reactor(name) {
            preview1::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
        } else {
            preview1::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
        };
        let component = componentize(module, world, adapter)
            .map_err(|error| format!("cannot make a component of {name}: {error}"))?;
        fs::write(out.join(format!("{name}.component.wasm")), component)?;
    }
    Ok(())
}

fn is_reactor(guest: &str) -> bool {
    REACTORS.iter().any(|(name, _)| *name == guest)
}

/// Compiles one file of C to a module.
fn compile(source: &Path, module: &Path, reactor: bool) -> Result<(), Error> {
    let mut clang = Command::new("clang");
    clang.args([
        "--target=wasm32-wasi",
        "-O2",
        "-Wall",
        "-Werror",
        "-Wl,--strip-debug",
    ]);
    if reactor {
        clang.arg("-mexec-model=reactor");
    }
    let output = clang
        .arg(source)
        .arg("-o")
        .arg(module)
        .output()
        .map_err(|error| {
            format!("cannot run clang: {error}\ninstall these packages: {PACKAGES}")
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "clang cannot compile {} for wasm32-wasi, which needs these packages: {PACKAGES}\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr),
    )
    .into())
}

/// Makes a component of a preview 1 module. `world` says what it imports and exports besides.
fn componentize(
    mut module: Vec<u8>,
    world: Option<&str>,
    adapter: &[u8],
) -> Result<Vec<u8>, Error> {
    if let Some(world) = world {
        let mut resolve = Resolve::default();
        let package = resolve.push_file("guests/component.wit")?;
        let world = resolve.select_world(&[package], Some(world))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)?;
    }
    ComponentEncoder::default()
        .module(&module)?
        .adapter(preview1::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
        .validate(true)
        .encode()
        .map_err(Error::from)
}
