//! Every dependency is used: its name occurs in the sources that can use it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::tree::Tree;

pub(super) fn check(tree: &Tree, packages: &[Value]) -> Vec<String> {
    let directories: Vec<_> = packages
        .iter()
        .map(|package| directory(tree, package))
        .collect();
    let mut problems = Vec::new();
    for (package, directory) in packages.iter().zip(&directories) {
        // A package may have another one inside of its directory.
        let inner = directories
            .iter()
            .filter(|other| other.len() > directory.len() && other.starts_with(directory.as_str()));
        let inner: Vec<_> = inner.collect();
        let sources = tree.with_extension("rs").filter(|path| {
            path.starts_with(directory.as_str())
                && !inner.iter().any(|other| path.starts_with(other.as_str()))
        });
        let words = |paths: Vec<&str>| -> BTreeSet<String> {
            paths
                .iter()
                .flat_map(|path| words(&tree.text(path)))
                .collect()
        };
        let (build, others): (Vec<_>, Vec<_>) =
            sources.partition(|path| *path == format!("{directory}build.rs"));
        let (build, others) = (words(build), words(others));
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = match dependency["kind"].as_str() {
                Some("build") => &build,
                _ => &others,
            };
            let called = dependency["rename"]
                .as_str()
                .or(dependency["name"].as_str());
            let called = called.unwrap_or_default();
            if !used.contains(&called.replace('-', "_")) {
                problems.push(format!("{name} does not use its dependency `{called}`"));
            }
        }
    }
    [problems, of_the_workspace(tree)].concat()
}

/// The directory of a package with a slash, relative to the root.
fn directory(tree: &Tree, package: &Value) -> String {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let directory = manifest.parent().unwrap_or(manifest);
    let directory = directory.strip_prefix(&tree.root).unwrap_or(directory);
    format!("{}/", directory.display())
}

/// The words of the lines that are no comments.
fn words(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.map(str::to_owned).collect()
}

/// Dependencies that the workspace declares and no package takes.
fn of_the_workspace(tree: &Tree) -> Vec<String> {
    let root = tree.text("Cargo.toml");
    let declared = root
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]");
    let declared = declared.skip(1).take_while(|line| !line.starts_with('['));
    let names = declared.filter_map(|line| line.split_once(" =").map(|(name, _)| name));
    let manifests: Vec<_> = tree
        .with_extension("toml")
        .filter(|path| path.ends_with("/Cargo.toml"))
        .map(|path| tree.text(path))
        .collect();
    let is_taken = |name: &str| {
        let begins = [
            format!("{name} = {{ workspace"),
            format!("{name}.workspace"),
        ];
        let mut lines = manifests.iter().flat_map(|text| text.lines());
        lines.any(|line| begins.iter().any(|begin| line.starts_with(begin)))
    };
    names
        .filter(|name| !is_taken(name))
        .map(|name| format!("no package takes `{name}` of the workspace's dependencies"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn dependencies_that_nobody_uses_are_found() {
        let (_kept, tree) = tree::of(&[
            (
                "Cargo.toml",
                "[workspace.dependencies]\none-a = \"1\"\nnone = \"1\"\n\n[x]\ny = 1\n",
            ),
            (
                "a/Cargo.toml",
                "[dependencies]\none-a = { workspace = true }\n",
            ),
            ("a/src/lib.rs", "// two\nuse one_a::X;\n"),
            ("a/build.rs", "fn main() { three::f(); }\n"),
            ("a/inner/src/lib.rs", "use two::X;\n"),
        ]);
        let package = |directory: &str, dependencies: Value| {
            let manifest = tree.root.join(directory).join("Cargo.toml");
            serde_json::json!({ "name": directory, "manifest_path": manifest, "dependencies": dependencies })
        };
        let dependencies = serde_json::json!([
            { "name": "one-a" },
            { "name": "two", "kind": "dev" },
            { "name": "three", "kind": "build" },
            { "name": "four", "rename": "three" },
        ]);
        let packages = [
            package("a", dependencies),
            package("a/inner", serde_json::json!([])),
        ];
        assert_eq!(
            check(&tree, &packages),
            [
                "a does not use its dependency `two`",
                "a does not use its dependency `three`",
                "no package takes `none` of the workspace's dependencies",
            ]
        );
    }
}
