//! What is changed in a module before Wasmer compiles it, so that it starts as on other engines.
//!
//! Wasmer tells WASI where the guest's memory is only after the module's start function has run, and
//! a call of WASI in there would be a panic. It calls `_initialize` of each module that exports one.
//! And it does not start a module that neither imports nor exports a memory. So the start function
//! and `_initialize` get names of ours, by which [`crate::module`] calls them, and so does a memory.

use std::borrow::Cow;

use shimwright_core::BoxError;
use wasmparser::{Encoding, Export, ExternalKind, Parser, Payload, TypeRef};

/// Our names of what a module exports. An image's module cannot use them.
pub(crate) const START: &str = "shimwright:start";
const INITIALIZE: &str = "shimwright:initialize";
const MEMORY: &str = "shimwright:memory";

/// Changes with each change of what is done here: it is part of the key of compiled code.
pub(crate) const VERSION: u32 = 1;

/// The numbers of sections, and the order that they have in a module.
const MEMORY_SECTION: u8 = 5;
const EXPORT_SECTION: u8 = 7;
const START_SECTION: u8 = 8;
const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

const PREAMBLE: usize = 8;

/// One memory of no pages, which never has any.
const NO_PAGES: &[u8] = &[1, 1, 0, 0];

/// By which name a prepared module exports what an image's module calls `name`.
pub(crate) fn exported(name: &str) -> &str {
    match name {
        "_initialize" => INITIALIZE,
        other => other,
    }
}

/// The module with the names above; borrowed if it needs none.
///
/// # Errors
///
/// The bytes are no module, or the module has such a name already.
pub(crate) fn prepare(wasm: &[u8]) -> Result<Cow<'_, [u8]>, BoxError> {
    let module = Module::read(wasm)?;
    if let Some(export) = module.exports.iter().find(|export| is_ours(export.name)) {
        let name = export.name;
        return Err(format!("the module exports `{name}`, a name of this engine's own").into());
    }
    // Wasmer links such a module with others, and then has an order of its own.
    let is_settled = !module.names_initialize()
        && !module.takes_start()
        && (module.imports_memory || module.exports_memory());
    if module.is_dynamic || is_settled {
        return Ok(Cow::Borrowed(wasm));
    }
    Ok(Cow::Owned(module.write(&wasm[..PREAMBLE])?))
}

fn is_ours(name: &str) -> bool {
    [START, INITIALIZE, MEMORY].contains(&name)
}

/// The parts of a module that matter here.
#[derive(Default)]
struct Module<'a> {
    /// All sections in order, by number.
    sections: Vec<(u8, Cow<'a, [u8]>)>,
    exports: Vec<Export<'a>>,
    start: Option<u32>,
    imports_memory: bool,
    has_memory: bool,
    is_dynamic: bool,
}

impl<'a> Module<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, BoxError> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            if let Some((number, range)) = payload.as_section() {
                let content = wasm.get(range).ok_or("a section is cut off")?;
                module.sections.push((number, Cow::Borrowed(content)));
            }
            match payload {
                Payload::Version { encoding, .. } if encoding != Encoding::Module => {
                    return Err("not a module".into());
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        module.imports_memory |= matches!(import?.ty, TypeRef::Memory(_));
                    }
                }
                Payload::MemorySection(memories) => module.has_memory = memories.count() > 0,
                Payload::ExportSection(exports) => {
                    module.exports = exports.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::StartSection { func, .. } => module.start = Some(func),
                Payload::CustomSection(custom) => {
                    module.is_dynamic |= custom.name() == "dylink.0";
                }
                _ => {}
            }
        }
        Ok(module)
    }

    fn names_initialize(&self) -> bool {
        let mut exports = self.exports.iter();
        exports.any(|export| exported(export.name) != export.name)
    }

    fn exports_memory(&self) -> bool {
        let mut exports = self.exports.iter();
        exports.any(|export| export.kind == ExternalKind::Memory)
    }

    /// Whether the start function is to be called by name. Where memory is imported, that is by
    /// threads, each instance runs it, and the memory is known before.
    fn takes_start(&self) -> bool {
        self.start.is_some() && !self.imports_memory
    }

    /// The module with our names.
    fn write(mut self, preamble: &[u8]) -> Result<Vec<u8>, BoxError> {
        let mut exports = std::mem::take(&mut self.exports);
        for export in &mut exports {
            export.name = exported(export.name);
        }
        let mut add = |name, kind, index| exports.push(Export { name, kind, index });
        if self.takes_start()
            && let Some(function) = self.start
        {
            add(START, ExternalKind::Func, function);
            self.sections.retain(|(number, _)| *number != START_SECTION);
        }
        if !self.imports_memory && !exports_a_memory(&exports) {
            exports.push(Export {
                name: MEMORY,
                kind: ExternalKind::Memory,
                index: 0,
            });
            if !self.has_memory {
                self.replace(MEMORY_SECTION, NO_PAGES.to_vec());
            }
        }
        self.replace(EXPORT_SECTION, encode(&exports)?);
        let mut wasm = preamble.to_vec();
        for (number, content) in &self.sections {
            wasm.push(*number);
            counted(content, &mut wasm);
        }
        Ok(wasm)
    }

    /// Replaces the section of this number, or adds one at its place.
    fn replace(&mut self, number: u8, content: Vec<u8>) {
        self.sections.retain(|(other, _)| *other != number);
        let place = |number: u8| ORDER.iter().position(|other| *other == number);
        let behind = |(other, _): &(u8, _)| place(*other) > place(number);
        let at = self.sections.iter().position(behind);
        let at = at.unwrap_or(self.sections.len());
        self.sections.insert(at, (number, Cow::Owned(content)));
    }
}

fn exports_a_memory(exports: &[Export<'_>]) -> bool {
    let mut exports = exports.iter();
    exports.any(|export| export.kind == ExternalKind::Memory)
}

/// The content of an export section.
fn encode(exports: &[Export<'_>]) -> Result<Vec<u8>, BoxError> {
    let mut content = Vec::new();
    number(exports.len(), &mut content);
    for export in exports {
        counted(export.name.as_bytes(), &mut content);
        content.push(match export.kind {
            ExternalKind::Func => 0,
            ExternalKind::Table => 1,
            ExternalKind::Memory => 2,
            ExternalKind::Global => 3,
            ExternalKind::Tag => 4,
            ExternalKind::FuncExact => {
                return Err(format!("the export `{}` is of an unknown kind", export.name).into());
            }
        });
        number(usize::try_from(export.index)?, &mut content);
    }
    Ok(content)
}

/// Adds bytes, preceded by their number.
fn counted(bytes: &[u8], to: &mut Vec<u8>) {
    number(bytes.len(), to);
    to.extend_from_slice(bytes);
}

/// Adds a number: seven bits in each byte, the lowest first.
fn number(mut value: usize, to: &mut Vec<u8>) {
    loop {
        let bits = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return to.push(bits);
        }
        to.push(bits | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text becomes, checked to be a module.
    #[track_caller]
    fn prepared(text: &str) -> Vec<u8> {
        let wasm = wat::parse_str(text).unwrap();
        let prepared = prepare(&wasm).unwrap().into_owned();
        wasmparser::validate(&prepared).unwrap();
        prepared
    }

    /// The names that a module exports, and whether it has a start function.
    fn exports(wasm: &[u8]) -> (Vec<&str>, bool) {
        let module = Module::read(wasm).unwrap();
        let names = module.exports.iter().map(|export| export.name).collect();
        (names, module.start.is_some())
    }

    #[test]
    fn a_module_that_starts_the_same_everywhere_is_left_alone() {
        for text in [
            r#"(module (memory (export "memory") 1) (func (export "_start")))"#,
            r#"(module (import "env" "memory" (memory 1)) (func $s) (start $s))"#,
            r#"(module (@custom "dylink.0" "") (func $s) (start $s))"#,
        ] {
            let wasm = wat::parse_str(text).unwrap();
            assert!(
                matches!(prepare(&wasm).unwrap(), Cow::Borrowed(_)),
                "{text}"
            );
        }
    }

    #[test]
    fn the_start_function_and_initialize_have_names() {
        let wasm = prepared(
            r#"(module (memory (export "m") 1) (global (export "g") i32 (i32.const 0))
                (func (export "_initialize")) (func $s) (start $s) (elem declare func $s)
                (data (i32.const 0) "x"))"#,
        );
        let names = ["m", "g", INITIALIZE, START];
        assert_eq!(exports(&wasm), (names.to_vec(), false));
    }

    #[test]
    fn a_memory_is_there_and_exported() {
        for text in [
            r#"(module (func (export "_start")))"#,
            r#"(module (memory 1) (func (export "_start")) (data (i32.const 0) "x"))"#,
        ] {
            let wasm = prepared(text);
            assert_eq!(exports(&wasm), (vec!["_start", MEMORY], false), "{text}");
        }
        assert_eq!(exports(&prepared("(module)")), (vec![MEMORY], false));
    }

    #[test]
    fn names_of_ours_are_refused() {
        let text = format!(r#"(module (func (export "{START}")))"#);
        let error = prepare(&wat::parse_str(text).unwrap()).unwrap_err();
        assert!(error.to_string().contains(START), "{error}");
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        for wasm in [
            &b"\0asm"[..],
            b"\0asm\x01\0\0\0\x07\x05",
            b"\0asm\x0d\0\x01\0",
        ] {
            assert!(prepare(wasm).is_err(), "{wasm:?}");
        }
    }
}
