//! Binaries without WasmEdge's native code.
//!
//! `wasmedge compile` adds native code to a binary, in a custom section that WasmEdge executes
//! without a question when it is told to run compiled code. That of an image is left out, so that
//! the only such section there can be is one that this engine's own compiler has added.

use std::borrow::Cow;

/// The name of the section with native code.
const NATIVE: &[u8] = b"wasmedge";

const PREAMBLE: usize = 8;
const CUSTOM: u8 = 0;
#[cfg(any(fuzzing, test, linked))]
const MEMORY: u8 = 5;

/// What the guest is called by [`INITIALIZER`].
#[cfg(any(test, linked))]
pub(crate) const GUEST: &str = "guest";
/// The function of [`INITIALIZER`].
#[cfg(any(test, linked))]
pub(crate) const INITIALIZER_RUN: &str = "run";
/// The global of [`INITIALIZER`] that is not 0 once the guest's function has returned.
#[cfg(any(test, linked))]
pub(crate) const INITIALIZER_RETURNED: &str = "returned";
/// A module that calls the guest's `_initialize`, and says whether that has returned. A test has it
/// as text.
#[cfg(any(test, linked))]
pub(crate) const INITIALIZER: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x04\x01`\0\0\
    \x02\x15\x01\x05guest\x0b_initialize\0\0\
    \x03\x02\x01\0\
    \x06\x06\x01\x7f\x01A\0\x0b\
    \x07\x12\x02\x08returned\x03\0\x03run\0\x01\
    \x0a\x0a\x01\x08\0\x10\0A\x01$\0\x0b";

/// Why a binary cannot be taken apart.
const BROKEN: &str = "not a valid module: its sections are longer than the binary";

/// The binary without sections that hold native code; borrowed if there are none.
///
/// # Errors
///
/// That it is not made of sections.
pub(crate) fn without_native_code(wasm: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    let mut sections = Vec::new();
    let mut rest = wasm.get(PREAMBLE..).ok_or(BROKEN)?;
    let mut is_clean = true;
    while !rest.is_empty() {
        let (section, id, content) = section(&mut rest)?;
        if id == CUSTOM && is_native(content)? {
            is_clean = false;
        } else {
            sections.push(section);
        }
    }
    if is_clean {
        return Ok(Cow::Borrowed(wasm));
    }
    let mut clean = wasm[..PREAMBLE].to_vec();
    clean.extend(sections.concat());
    Ok(Cow::Owned(clean))
}

/// How many pages a module's largest memory begins with. The library limits only how far one grows.
///
/// # Errors
///
/// That the binary is not made of sections, or its memories are none.
#[cfg(any(fuzzing, test, linked))]
pub(crate) fn initial_pages(wasm: &[u8]) -> Result<u64, &'static str> {
    let mut rest = wasm.get(PREAMBLE..).ok_or(BROKEN)?;
    let mut largest = 0;
    while !rest.is_empty() {
        let (_, id, mut content) = section(&mut rest)?;
        if id != MEMORY {
            continue;
        }
        for _ in 0..number(&mut content)? {
            let flags = number(&mut content)?;
            largest = largest.max(number(&mut content)?);
            // The lowest bit says that there is a maximum.
            if flags & 1 == 1 {
                number(&mut content)?;
            }
        }
    }
    Ok(largest)
}

/// Takes the first section: all of it, its number, and its content.
fn section<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], u8, &'a [u8]), &'static str> {
    let begin = *rest;
    let (&id, after) = rest.split_first().ok_or(BROKEN)?;
    *rest = after;
    let content = counted(rest)?;
    Ok((&begin[..begin.len() - rest.len()], id, content))
}

fn is_native(mut content: &[u8]) -> Result<bool, &'static str> {
    Ok(counted(&mut content)? == NATIVE)
}

/// Takes bytes that are preceded by their number.
fn counted<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let length = usize::try_from(number(rest)?).map_err(|_| BROKEN)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(BROKEN)?;
    *rest = after;
    Ok(bytes)
}

/// Takes a number: seven bits in each byte, the lowest first, at most ten bytes.
fn number(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0_u128;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(BROKEN)?;
        *rest = after;
        value |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u64::try_from(value).map_err(|_| BROKEN);
        }
    }
    Err(BROKEN)
}

/// What is left of any bytes has no native code, and nothing else is missing.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(wasm: &[u8]) {
    let Ok(clean) = without_native_code(wasm) else {
        return;
    };
    assert!(clean.starts_with(&wasm[..PREAMBLE]) && clean.len() <= wasm.len());
    let again = without_native_code(&clean).expect("it is made of sections");
    assert!(matches!(again, Cow::Borrowed(_)), "there is some left");
    let _ = initial_pages(&clean);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";
    /// Native code, first with its lengths as short as can be and then as long as can be.
    const SECTIONS: [&[u8]; 2] = [
        b"\0\x0b\x08wasmedgeXX",
        b"\0\x8f\x80\x80\x80\0\x88\x80\x80\x80\0wasmedgeXX",
    ];
    const OTHER: &[u8] = b"\0\x07\x05otherX";

    #[test]
    fn native_code_is_left_out_wherever_it_is() {
        for native in SECTIONS {
            for parts in [[EMPTY, native, OTHER], [EMPTY, OTHER, native]] {
                let wasm = parts.concat();
                let clean = without_native_code(&wasm).unwrap();
                assert_eq!(clean, [EMPTY, OTHER].concat());
            }
            let twice = [EMPTY, native, native].concat();
            assert_eq!(without_native_code(&twice).unwrap(), EMPTY);
        }
    }

    #[test]
    fn a_binary_without_native_code_is_left_alone() {
        let wasm = [EMPTY, OTHER].concat();
        let clean = without_native_code(&wasm).unwrap();
        assert!(matches!(clean, Cow::Borrowed(_)));
        assert_eq!(clean, wasm);
    }

    #[test]
    fn what_the_fuzz_target_begins_with_is_taken() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/native_code");
        let files = std::fs::read_dir(corpus).unwrap();
        let run = files.map(|file| fuzz(&std::fs::read(file.unwrap().path()).unwrap()));
        assert_ne!(run.count(), 0);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let wasm = [EMPTY, SECTIONS[1]].concat();
        for length in (0..wasm.len()).filter(|length| *length != EMPTY.len()) {
            assert!(without_native_code(&wasm[..length]).is_err(), "{length}");
        }
        let endless = [EMPTY, b"\0", &[0x80; 10], b"\0"].concat();
        assert!(without_native_code(&endless).is_err());
    }

    #[test]
    fn the_initializer_is_this_text() {
        let text = format!(
            r#"(module
                (import "{GUEST}" "_initialize" (func $initialize))
                (global $returned (export "{INITIALIZER_RETURNED}") (mut i32) (i32.const 0))
                (func (export "{INITIALIZER_RUN}")
                    (call $initialize)
                    (global.set $returned (i32.const 1))))"#
        );
        // Without the names of its parts, which are for people.
        let built = wat::parse_str(text).unwrap();
        assert_eq!(built.get(..INITIALIZER.len()), Some(INITIALIZER));
    }

    #[test]
    fn the_largest_memory_counts() {
        let pages = |text: &str| initial_pages(&wat::parse_str(text).unwrap());
        assert_eq!(pages("(module)"), Ok(0));
        assert_eq!(pages("(module (memory 300))"), Ok(300));
        assert_eq!(
            pages("(module (memory 1 2) (memory 5 9) (memory 3))"),
            Ok(5)
        );
        assert_eq!(pages("(module (memory i64 70000))"), Ok(70_000));
        assert_eq!(pages("(module (memory 2 4 shared))"), Ok(2));
    }
}
