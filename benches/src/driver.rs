//! What the scenarios do with a shim, which may be anybody's.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use shimwright_guests::Guest;
use shimwright_testkit::protos::ttrpc::{self, Code};
use shimwright_testkit::{Bundle, Containerd, Output, Shim, Version};

use crate::{Error, Result, interrupt};

/// How long compiling a large program may take.
pub const COMPILING: Duration = Duration::from_secs(5 * 60);

/// How long a program may run that should end at once.
pub const BRIEF: Duration = Duration::from_secs(30);

/// A program and its arguments, Wasm or native.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    content: Vec<u8>,
    args: Vec<String>,
}

impl Program {
    /// A program with this name in its container.
    pub fn new(name: &str, content: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            content,
            args: Vec::new(),
        }
    }

    /// A program in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let content =
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let name = path.file_name().unwrap_or_default();
        Ok(Self::new(&name.to_string_lossy(), content))
    }

    /// The same program with these arguments, its name not among them.
    pub fn with_args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args = args.into_iter().map(str::to_owned).collect();
        self
    }

    /// The same WebAssembly program in bytes that no cache has seen: with a custom section, which
    /// means nothing, at its end.
    pub fn never_seen(&self, number: usize) -> Self {
        let nonce = format!("{:08x}{number:08x}", std::process::id());
        let mut other = self.clone();
        // Number and size of the section, then its name with the name's length.
        let length = u8::try_from(nonce.len()).expect("two numbers of eight digits");
        other.content.extend([0, length + 1, length]);
        other.content.extend(nonce.as_bytes());
        other
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The binary.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The arguments, without the program's name.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// A bundle that runs it, in this pod.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn bundle(&self, containerd: &Containerd, id: &str, pod: &str) -> Result<Bundle> {
        let bundle = containerd.bundle(id)?;
        self.complete(bundle.file(&self.path(), &self.content, 0o755)?, pod)
    }

    /// The same with the files of the image of another one, as containers of one image have them.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn bundle_of(
        &self,
        image: &Bundle,
        containerd: &Containerd,
        id: &str,
        pod: &str,
    ) -> Result<Bundle> {
        self.complete(containerd.bundle(id)?.overlay_of(image)?, pod)
    }

    fn path(&self) -> String {
        format!("/{}", self.name)
    }

    fn complete(&self, bundle: Bundle, pod: &str) -> Result<Bundle> {
        let path = self.path();
        let words = self.args.iter().map(String::as_str);
        let args: Vec<&str> = std::iter::once(path.as_str()).chain(words).collect();
        bundle.pod(pod)?.args(&args)?.log()
    }
}

impl From<Guest> for Program {
    fn from(guest: Guest) -> Self {
        Self::new(&format!("{}.wasm", guest.name()), guest.wasm().to_vec())
    }
}

/// A containerd whose runtime is this shim, with a cache of its own. Commands that the shim runs
/// are looked for in `path` first.
///
/// # Errors
///
/// If it cannot be made.
pub fn containerd(shim: &Path, path: Option<&Path>) -> Result<Containerd> {
    let mut containerd = Containerd::with_shim(shim)
        .map_err(|error| format!("cannot use {}: {error}", shim.display()))?;
    let cache = containerd.directory().join("cache");
    containerd = containerd.with_cache(&cache)?;
    if let Some(path) = path {
        containerd = containerd.with_path(path);
    }
    Ok(containerd)
}

/// Starts the shim of a bundle. Its Task service is called by the name that it knows, which is
/// returned too: shims of containerd 1.x have another.
///
/// # Errors
///
/// If it does not start, or does not answer.
pub fn start(containerd: &Containerd, bundle: &Bundle) -> Result<(Shim, Version)> {
    let shim = containerd.start(bundle)?;
    let version = shim.served()?;
    Ok((shim.version(version), version))
}

/// Creates the container of a bundle, which may take as long as compiling its program.
///
/// # Errors
///
/// The shim's.
pub fn create(shim: &Shim, bundle: &Bundle) -> ttrpc::Result<u32> {
    shim.deadline(COMPILING).create(bundle)
}

/// The milliseconds of a task's life.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Of `create`.
    pub create: f64,
    /// Of `create`, `start`, `wait` and `delete`.
    pub whole: f64,
}

/// A task's whole life.
///
/// # Errors
///
/// The shim's, or that the program does not end with 0 within this time.
pub fn live(shim: &Shim, bundle: &Bundle, bound: Duration) -> Result<Life> {
    interrupt::check()?;
    let begin = Instant::now();
    create(shim, bundle)?;
    let created = milliseconds(begin);
    shim.start(bundle.id())?;
    let status = wait(shim, bundle.id(), bound)?;
    shim.delete(bundle.id())?;
    let whole = milliseconds(begin);
    if status != 0 {
        return Err(format!("the program ended with {status}").into());
    }
    Ok(Life {
        create: created,
        whole,
    })
}

/// Waits for the end of a program that may run for long, and returns its exit status.
///
/// # Errors
///
/// The shim's, or that it has not ended after this time.
pub fn wait(shim: &Shim, id: &str, bound: Duration) -> Result<u32> {
    let begin = Instant::now();
    // In slices, so that an interrupt is noticed.
    let patient = shim.deadline(Duration::from_secs(1));
    loop {
        interrupt::check()?;
        match patient.wait(id) {
            Ok(ended) => return Ok(ended.exit_status),
            Err(ttrpc::Error::RpcStatus(status)) if status.code() != Code::DEADLINE_EXCEEDED => {
                return Err(status.message().into());
            }
            Err(ttrpc::Error::Socket(text)) => return Err(text.into()),
            Err(_) if begin.elapsed() < bound => {}
            Err(_) => return Err(format!("the program has not ended within {bound:?}").into()),
        }
    }
}

/// Waits until a program has written something, or closed its output.
///
/// # Errors
///
/// If it has not after this time.
pub fn first_output(output: &Output, bound: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        interrupt::check()?;
        match output.find(|bytes, ended| (ended || !bytes.is_empty()).then_some(())) {
            Err(_) if begin.elapsed() < bound => {}
            outcome => return outcome,
        }
    }
}

/// What is said of a program that has ended with this, not with 0.
pub fn failed(status: u32, stderr: &Output) -> Error {
    let text = stderr.text().unwrap_or_default();
    format!("the program ended with {status}: {}", text.trim()).into()
}

/// The milliseconds since then.
pub fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A process's share of the memory, in KiB: what it shares with others is divided among them.
///
/// # Errors
///
/// If it has ended.
pub fn pss(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no Pss in smaps_rollup")?.parse()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use shimwright_guests::HELLO;

    use super::*;

    #[test]
    fn a_program_never_seen_is_the_same_with_one_more_section() {
        let program = Program::from(HELLO);
        let [one, two] = [1, 2].map(|number| program.never_seen(number));
        assert_ne!(one.content(), two.content());
        let section = one.content().strip_prefix(program.content()).unwrap();
        let [id, size, name, rest @ ..] = section else {
            panic!("no section");
        };
        assert_eq!((*id, usize::from(*size)), (0, rest.len() + 1));
        assert_eq!(usize::from(*name), rest.len());
    }

    #[test]
    fn our_own_share_of_the_memory_is_read() {
        assert!(pss(std::process::id().cast_signed()).unwrap() > 0);
    }
}
