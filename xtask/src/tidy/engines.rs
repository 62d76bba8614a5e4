//! The table of engines agrees with the workspace and with the documents.

use serde_json::Value;

use super::tree::Tree;

/// Documents that tell of every engine.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/conformance.md"];

/// Each row has a package with its shim, a feature of the facade unless it is an example, and a place
/// in the documents.
pub(super) fn check(tree: &Tree, packages: &[Value]) -> Vec<String> {
    let package = |name: &str| packages.iter().find(|package| package["name"] == name);
    let facade = package("shimwright");
    let mut problems = Vec::new();
    for engine in shimwright_engines::ALL {
        let targets = package(engine.package).and_then(|found| found["targets"].as_array());
        let mut targets = targets.into_iter().flatten();
        if !targets.any(|target| target["name"] == engine.shim) {
            problems.push(format!("{} has no {}", engine.package, engine.shim));
        }
        let has_feature = facade.is_some_and(|found| found["features"][engine.name].is_array());
        if !has_feature && !engine.is_example {
            problems.push(format!("shimwright has no feature `{}`", engine.name));
        }
        for file in DOCUMENTS {
            if !tree.text(file).contains(engine.title) {
                problems.push(format!("{file} does not mention {}", engine.title));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tidy::tree;

    #[test]
    fn a_row_without_a_shim_a_feature_or_a_document_is_a_problem() {
        let (_kept, tree) = tree::of(&[("README.md", "Wasmtime, Wasmer, WasmEdge, wasmi")]);
        let package = json!({
            "name": "shimwright-wasmtime",
            "targets": [{ "name": "containerd-shim-wasmtime-v1" }],
        });
        let problems = check(&tree, &[package]);
        let has = |text: &str| problems.iter().any(|problem| problem.contains(text));
        assert!(!has("has no containerd-shim-wasmtime-v1"), "{problems:?}");
        assert!(has("has no containerd-shim-wasmer-v1"), "{problems:?}");
        assert!(has("no feature `wasmer`") && !has("no feature `wasmi`"));
        assert!(has("docs/conformance.md") && !has("README.md"));
    }
}
