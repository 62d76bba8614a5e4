//! What runs: WebAssembly from the image, or native code that this shim compiled from it.
//!
//! Bytes of an image never become [`Precompiled`]: see `docs/threat-model.md`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "testing")]
use crate::engine::Precompiler;
use crate::engine::{BoxError, Refusal};
use crate::sys::memory::Mapping;

/// The first four bytes of every WebAssembly binary.
pub(crate) const MAGIC: [u8; 4] = *b"\0asm";

/// What a WebAssembly binary is, by its preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A core module: version 1, layer 0.
    Module,
    /// A binary of the Component Model: layer 1.
    Component,
}

impl Kind {
    /// Reads the eight-byte preamble of a WebAssembly binary.
    ///
    /// # Errors
    ///
    /// The bytes are not a WebAssembly binary, or its version is unknown.
    pub fn detect(bytes: &[u8]) -> Result<Self, Refusal> {
        let Some(preamble) = bytes.first_chunk::<8>() else {
            return Err(Refusal::new(
                "not a WebAssembly binary: shorter than its preamble",
            ));
        };
        let [m0, m1, m2, m3, v0, v1, layer0, layer1] = *preamble;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(Refusal::new("not a WebAssembly binary"));
        }
        let version = u16::from_le_bytes([v0, v1]);
        match u16::from_le_bytes([layer0, layer1]) {
            0 if version == 1 => Ok(Self::Module),
            1 => Ok(Self::Component),
            layer => Err(Refusal::new(format!(
                "WebAssembly binary of unknown version {version}, layer {layer}"
            ))),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Module => "core module",
            Self::Component => "component",
        })
    }
}

/// What to run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Artifact {
    /// WebAssembly from the image, not yet validated.
    Wasm(Wasm),
    /// Output of this engine's [`Precompiler`](crate::Precompiler).
    Precompiled(Precompiled),
}

impl Artifact {
    /// Whether this is a module or a component.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Wasm(wasm) => wasm.kind,
            Self::Precompiled(precompiled) => precompiled.kind,
        }
    }

    /// The WebAssembly binary, for an engine without a [`Precompiler`](crate::Precompiler).
    ///
    /// # Errors
    ///
    /// The artifact is precompiled. Only an engine with a precompiler gets such an artifact.
    pub fn wasm(&self) -> Result<&[u8], Refusal> {
        match self {
            Self::Wasm(wasm) => Ok(wasm.bytes()),
            Self::Precompiled(_) => Err(Refusal::new(
                "the artifact is precompiled: there is no WebAssembly binary",
            )),
        }
    }

    /// Accepts only an artifact of this kind.
    ///
    /// # Errors
    ///
    /// The artifact is of another kind. The error names both.
    pub fn require(&self, kind: Kind) -> Result<(), Refusal> {
        if self.kind() == kind {
            return Ok(());
        }
        Err(Refusal::new(format!(
            "this engine runs a {kind}, not a {}",
            self.kind()
        )))
    }
}

/// A WebAssembly binary with a valid preamble.
#[derive(Debug)]
pub struct Wasm {
    bytes: Mapping,
    kind: Kind,
}

impl Wasm {
    /// Takes the bytes of a binary.
    ///
    /// # Errors
    ///
    /// The bytes are not a WebAssembly binary.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Refusal> {
        let kind = Kind::detect(&bytes)?;
        Ok(Self {
            bytes: Mapping::from(bytes),
            kind,
        })
    }

    /// Maps a file, which nobody may be able to write to: one that is sealed, or a compiler's input.
    /// All readers of the file share its pages.
    ///
    /// # Errors
    ///
    /// The file cannot be mapped, or is not a WebAssembly binary.
    pub(crate) fn open(file: impl AsFd) -> Result<Self, BoxError> {
        let bytes = Mapping::of_file(file.as_fd())?;
        let kind = Kind::detect(bytes.as_ref())?;
        Ok(Self { bytes, kind })
    }

    /// The whole binary.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// A module or a component.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// Native code that this shim compiled earlier.
///
/// Core makes one only from the output of this engine's own [`Precompiler`](crate::Precompiler):
/// from the cache, after checking the key and the digest. So an engine may justify its `unsafe`
/// loader by having received this type.
#[derive(Debug)]
pub struct Precompiled {
    /// Until it is loaded.
    file: Mutex<Option<File>>,
    kind: Kind,
}

impl Precompiled {
    /// Wraps a file that the cache has verified.
    pub(crate) fn trusted(file: impl Into<OwnedFd>, kind: Kind) -> Self {
        Self {
            file: Mutex::new(Some(File::from(file.into()))),
            kind,
        }
    }

    /// Compiles a binary in this process, into anonymous memory that can no longer be changed.
    ///
    /// For tests of an engine (feature `testing`); a shim compiles in a process of its own.
    ///
    /// # Safety
    ///
    /// An engine loads the output as native code. So it must be output of the engine's own
    /// precompiler, or something that its loader refuses.
    ///
    /// # Errors
    ///
    /// What the precompiler says, or that there is no memory for its output.
    #[cfg(feature = "testing")]
    #[expect(
        unsafe_code,
        reason = "its caller has to uphold what the cache does in a shim"
    )]
    pub unsafe fn compile(precompiler: &dyn Precompiler, wasm: &Wasm) -> Result<Self, BoxError> {
        use std::io::Write;
        let native = precompiler.precompile(wasm.bytes())?;
        let mut file = crate::sys::memory::sealable_memfd(c"precompiled")?;
        file.write_all(&native)?;
        crate::sys::memory::seal(&file)?;
        Ok(Self::trusted(file, wasm.kind()))
    }

    /// Hands over the file that holds the native code, to be mapped rather than read: its pages are
    /// then shared by all containers that run it. From then on the engine alone has it, so that a
    /// guest that breaks out of it finds no descriptor that the engine does not need.
    ///
    /// # Errors
    ///
    /// It has been handed over already.
    pub fn take_file(&self) -> io::Result<File> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.take()
            .ok_or_else(|| io::Error::other("the artifact has been loaded already"))
    }

    /// Maps the native code, for an engine that takes bytes instead of a file, and closes the file.
    ///
    /// # Errors
    ///
    /// The file cannot be mapped, or has been handed over already.
    pub fn map(&self) -> io::Result<impl AsRef<[u8]> + Send + 'static> {
        Mapping::of_file(self.take_file()?.as_fd())
    }

    /// A module or a component.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<Kind, &str>) {
        let found = Kind::detect(bytes).map_err(|refusal| refusal.to_string());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn preamble_decides_the_kind() {
        check(b"\0asm\x01\0\0\0", Ok(Kind::Module));
        check(b"\0asm\x0d\0\x01\0", Ok(Kind::Component));
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        check(
            b"",
            Err("not a WebAssembly binary: shorter than its preamble"),
        );
        check(b"\x7fELF\x02\x01\x01\0", Err("not a WebAssembly binary"));
        check(
            b"\0asm\x02\0\0\0",
            Err("WebAssembly binary of unknown version 2, layer 0"),
        );
        check(
            b"\0asm\x01\0\x07\0",
            Err("WebAssembly binary of unknown version 1, layer 7"),
        );
    }

    #[test]
    fn require_names_both_kinds() {
        let component = Artifact::Wasm(Wasm::new(b"\0asm\x0d\0\x01\0".to_vec()).unwrap());
        assert_eq!(component.require(Kind::Component), Ok(()));
        assert_eq!(
            component.require(Kind::Module).unwrap_err().to_string(),
            "this engine runs a core module, not a component"
        );
    }
}
