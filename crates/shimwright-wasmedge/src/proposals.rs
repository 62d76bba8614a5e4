//! What WebAssembly has and this engine does not: found out before the library is asked, which would
//! only give the number of an error.

use shimwright_core::BoxError;
use wasmparser::{Validator, WasmFeatures};

/// What guests cannot use, and why not.
const ABSENT: [(WasmFeatures, &str); 4] = [
    (
        WasmFeatures::THREADS,
        "threads and shared memory, which compiled code of WasmEdge runs without",
    ),
    (
        WasmFeatures::CUSTOM_PAGE_SIZES,
        "custom page sizes, which WasmEdge does not have",
    ),
    (
        WasmFeatures::EXCEPTIONS.union(WasmFeatures::LEGACY_EXCEPTIONS),
        "exceptions, which WasmEdge's compiler does not have",
    ),
    (
        WasmFeatures::GC,
        "garbage collection (GC), which WasmEdge never frees memory by",
    ),
];

/// Checks that a module is valid, and needs nothing that this engine lacks.
///
/// # Errors
///
/// What is not valid and where, or what the module needs.
pub(crate) fn check(wasm: &[u8]) -> Result<(), BoxError> {
    let absent = ABSENT.iter();
    let absent = absent.fold(WasmFeatures::empty(), |all, (feature, _)| all | *feature);
    let validate = |features| Validator::new_with_features(features).validate_all(wasm);
    if validate(WasmFeatures::all() - absent).is_ok() {
        return Ok(());
    }
    validate(WasmFeatures::all())?;
    let is_needed = |feature| validate(WasmFeatures::all() - feature).is_err();
    match ABSENT.iter().find(|(feature, _)| is_needed(*feature)) {
        Some((_, what)) => Err(format!("the module needs {what}").into()),
        // One of several that do the same: the library decides.
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_named() {
        for (text, named) in [
            ("(module (memory 1 2 shared))", Some("threads")),
            (
                "(module (memory 1 (pagesize 1)))",
                Some("custom page sizes"),
            ),
            ("(module (tag))", Some("exceptions")),
            ("(module (type (struct)))", Some("GC")),
            ("(module (memory 1) (memory i64 1))", None),
        ] {
            let checked = check(&wat::parse_str(text).unwrap());
            let reason = checked.map_err(|error| error.to_string()).err();
            match named {
                None => assert_eq!(reason, None, "{text}"),
                Some(named) => assert!(
                    reason.as_ref().is_some_and(|reason| reason.contains(named)),
                    "{text}: {reason:?}"
                ),
            }
        }
    }

    #[test]
    fn what_is_not_valid_is_said_with_its_place() {
        let wasm = wat::parse_str("(module (func (result i32)))").unwrap();
        let error = check(&wasm).unwrap_err().to_string();
        assert!(
            error.contains("type mismatch") && error.contains("offset"),
            "{error}"
        );
    }
}
