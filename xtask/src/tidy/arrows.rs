//! Which folder of core uses which: the paths from the crate's root, and those by `super`, in `use`
//! declarations, expressions and macros. Tests do not count.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use shimwright_testenv::error::{Result, error};
use syn::visit::{self, Visit};

use super::tree::Tree;

/// Where the folders are.
const CORE: &str = "crates/shimwright-core/src/";

/// Files at core's root that stand above all folders.
const ROOTS: [&str; 3] = ["lib", "fuzzing", "testing"];

/// Which folder uses which, and in which files.
pub(super) type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

/// The groups of folders that reach each other.
pub(super) fn circles(arrows: &BTreeSet<(String, String)>) -> BTreeSet<Vec<String>> {
    let reached = |from: &str| -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(name) = open.pop() {
            let next = arrows.iter().filter(|(from, _)| *from == name);
            for (_, to) in next {
                if reached.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        reached
    };
    let names: BTreeSet<_> = arrows.iter().map(|(from, _)| from.clone()).collect();
    let all: BTreeMap<_, _> = names
        .iter()
        .map(|name| (name.clone(), reached(name)))
        .collect();
    let reaches = |from: &str, to: &str| all.get(from).is_some_and(|reached| reached.contains(to));
    let circles = names.iter().filter(|name| reaches(name, name));
    circles
        .map(|name| {
            let back = names
                .iter()
                .filter(|other| reaches(name, other) && reaches(other, name));
            back.cloned().collect()
        })
        .collect()
}

/// Reads all of core.
pub(super) fn read(tree: &Tree) -> Result<Arrows> {
    let exports = exports(&parse(tree, &format!("{CORE}lib.rs"))?);
    let mut files = Vec::new();
    for path in tree.with_extension("rs") {
        if let Some(inner) = path.strip_prefix(CORE) {
            files.push((inner, module(inner), parse(tree, path)?));
        }
    }
    let tests: Vec<_> = files
        .iter()
        .flat_map(|(_, module, file)| test_modules(module, file))
        .collect();
    let mut arrows = Arrows::new();
    for (inner, module, file) in files {
        let from = module.first().cloned().unwrap_or_default();
        let is_test = tests.iter().any(|test| module.starts_with(test));
        if is_test || ROOTS.contains(&&*from) {
            continue;
        }
        for to in uses(&file, module) {
            let to = exports.get(&to).unwrap_or(&to).clone();
            if to != from {
                let files = arrows.entry((from.clone(), to)).or_default();
                files.insert(inner.to_owned());
            }
        }
    }
    Ok(arrows)
}

fn parse(tree: &Tree, path: &str) -> Result<syn::File> {
    syn::parse_file(&tree.text(path)).map_err(|err| error!("cannot parse {path}: {err}"))
}

/// The modules in files of their own that a file declares for tests only.
fn test_modules(module: &[String], file: &syn::File) -> Vec<Vec<String>> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) if item.content.is_none() && is_test(&item.attrs) => Some(item),
        _ => None,
    });
    modules
        .map(|item| [module, &[item.ident.to_string()]].concat())
        .collect()
}

/// The path of the module that a file is.
fn module(file: &str) -> Vec<String> {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let file = file.strip_suffix("/mod").unwrap_or(file);
    file.split('/').map(str::to_owned).collect()
}

/// What `lib.rs` exports again, each name with its folder.
fn exports(file: &syn::File) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for item in &file.items {
        if let syn::Item::Use(item) = item {
            for path in flatten(&item.tree, Vec::new()) {
                if let (Some(first), Some(last)) = (path.first(), path.last()) {
                    found.insert(last.clone(), first.clone());
                }
            }
        }
    }
    found
}

/// Every path of a `use` declaration.
fn flatten(tree: &syn::UseTree, mut before: Vec<String>) -> Vec<Vec<String>> {
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before)
        }
        syn::UseTree::Group(group) => {
            let trees = group.items.iter();
            trees
                .flat_map(|tree| flatten(tree, before.clone()))
                .collect()
        }
        syn::UseTree::Name(name) => {
            before.push(name.ident.to_string());
            vec![before]
        }
        syn::UseTree::Rename(rename) => {
            before.push(rename.ident.to_string());
            vec![before]
        }
        syn::UseTree::Glob(_) => vec![before],
    }
}

/// The first names behind the crate's root of all paths in a file.
fn uses(file: &syn::File, module: Vec<String>) -> BTreeSet<String> {
    let mut visitor = Visitor {
        module,
        found: BTreeSet::new(),
    };
    visitor.visit_file(file);
    visitor.found
}

struct Visitor {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Visitor {
    /// Takes a path, if it leads to the crate's root.
    fn path(&mut self, path: &[String]) {
        let mut path = path.iter().map(String::as_str).peekable();
        let root = match path.peek() {
            Some(&"crate") => {
                path.next();
                true
            }
            Some(&"super" | &"self") => {
                path.next_if_eq(&"self");
                let mut left = self.module.len();
                while path.next_if_eq(&"super").is_some() {
                    left = left.saturating_sub(1);
                }
                left == 0
            }
            _ => false,
        };
        if let (true, Some(name)) = (root, path.next()) {
            self.found.insert(name.to_owned());
        }
    }

    /// Takes the paths of a macro's arguments, which are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1
                }
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(&std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.path(&std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(&path);
    }
}

/// Whether an item is compiled for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        is_cfg
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[_] = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for path in flatten(&item.tree, Vec::new()) {
            self.path(&path);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        self.path(&names);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.tokens(item.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    fn folders(module_file: &str, text: &str) -> Vec<String> {
        let file = syn::parse_file(text).unwrap();
        uses(&file, module(module_file)).into_iter().collect()
    }

    #[test]
    fn paths_to_other_folders_are_found_wherever_they_are() {
        let text = "use crate::{a::X, b::{self, Y}};\nuse super::super::c::Z;\nuse super::near;\n\
                    pub(crate) fn f(x: crate::d::D) { g::<crate::e::E>(); crate::h::i(); }\n\
                    fn m() { print!(\"{}\", crate::j::K); }\nmod inner { use super::super::super::l; }\n\
                    #[cfg(test)]\nmod tests { use crate::tested; }\n";
        let expected = ["a", "b", "c", "d", "e", "h", "j", "l"];
        assert_eq!(folders("shim/start.rs", text), expected);
        assert_eq!(folders("shim/mod.rs", "use super::sys;"), ["sys"]);
        assert_eq!(
            folders("shim/mod.rs", "pub(in crate::x) struct A;"),
            [""; 0]
        );
    }

    #[test]
    fn files_of_tests_do_not_count() {
        let (_kept, tree) = tree::of(&[
            ("crates/shimwright-core/src/lib.rs", ""),
            (
                "crates/shimwright-core/src/sys/mod.rs",
                "#[cfg(test)]\nmod tests;",
            ),
            (
                "crates/shimwright-core/src/sys/tests.rs",
                "use crate::shim;",
            ),
        ]);
        assert_eq!(read(&tree).unwrap(), Arrows::new());
    }

    #[test]
    fn a_name_that_lib_exports_again_is_its_folder() {
        let (_kept, tree) = tree::of(&[
            (
                "crates/shimwright-core/src/lib.rs",
                "mod sys; pub use shim::Shim;",
            ),
            (
                "crates/shimwright-core/src/shim/mod.rs",
                "use crate::sys::x;",
            ),
            (
                "crates/shimwright-core/src/sys/mod.rs",
                "fn f() { super::Shim::new(); }",
            ),
        ]);
        let arrows: Vec<_> = read(&tree).unwrap().into_keys().collect();
        let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(arrows, [arrow("shim", "sys"), arrow("sys", "shim")]);
    }

    #[test]
    fn a_circle_is_found_once() {
        let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let all = [
            arrow("a", "b"),
            arrow("b", "c"),
            arrow("c", "a"),
            arrow("c", "d"),
        ];
        let circles = circles(&BTreeSet::from(all));
        assert_eq!(
            circles,
            BTreeSet::from([vec!["a".into(), "b".into(), "c".into()]])
        );
    }
}
