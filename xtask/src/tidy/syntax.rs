//! What Rust sources declare: functions with their length, and names that belong to a type or module.

use std::collections::{BTreeMap, BTreeSet};

use shimwright_testenv::error::{Result, error};
use syn::visit::{self, Visit};

use super::tree::Tree;

/// All parsed sources.
#[derive(Default)]
pub(super) struct Syntax {
    pub(super) functions: Vec<Function>,
    /// For each name, the files that declare it, by the type, trait or module that owns it.
    names: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    owners: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) path: String,
    pub(super) name: String,
    /// From its first word to its last brace.
    pub(super) lines: usize,
}

impl Syntax {
    pub(super) fn read(tree: &Tree) -> Result<Self> {
        let mut syntax = Self::default();
        for path in tree.with_extension("rs") {
            syntax.add(path, &tree.text(path))?;
        }
        Ok(syntax)
    }

    fn add(&mut self, path: &str, text: &str) -> Result<()> {
        let file = syn::parse_file(text).map_err(|err| error!("cannot parse {path}: {err}"))?;
        let mut visitor = Visitor {
            path,
            owners: vec![module(path)],
            syntax: self,
        };
        visitor.visit_file(&file);
        Ok(())
    }

    /// Whether some type, trait or module has this name.
    pub(super) fn has_owner(&self, name: &str) -> bool {
        self.owners.contains(name)
    }

    /// Whether anything has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.has_owner(name) || self.names.contains_key(name)
    }

    /// The files in which `owner` has `name`.
    pub(super) fn files(&self, owner: &str, name: &str) -> impl Iterator<Item = &str> {
        let owners = self.names.get(name);
        let files = owners.and_then(|owners| owners.get(owner));
        files.into_iter().flatten().map(String::as_str)
    }

    fn declare(&mut self, path: &str, owner: &str, name: String) {
        self.owners.insert(owner.to_owned());
        let owners = self.names.entry(name).or_default();
        let files = owners.entry(owner.to_owned()).or_default();
        files.insert(path.to_owned());
    }
}

/// The name of the module that a file is.
fn module(path: &str) -> String {
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or_default();
    let directory = parts.next().unwrap_or_default();
    match file.strip_suffix(".rs").unwrap_or(file) {
        "mod" => directory.to_owned(),
        stem => stem.to_owned(),
    }
}

struct Visitor<'a> {
    path: &'a str,
    /// The module, and within it the type, trait or further module.
    owners: Vec<String>,
    syntax: &'a mut Syntax,
}

impl Visitor<'_> {
    fn declare(&mut self, name: &syn::Ident) {
        let owner = self.owners.last().cloned().unwrap_or_default();
        self.syntax.declare(self.path, &owner, name.to_string());
    }

    fn function(&mut self, name: &syn::Ident, lines: usize) {
        self.declare(name);
        self.syntax.functions.push(Function {
            path: self.path.to_owned(),
            name: name.to_string(),
            lines,
        });
    }

    fn inside(&mut self, owner: String, visit: impl FnOnce(&mut Self)) {
        self.syntax.owners.insert(owner.clone());
        self.owners.push(owner);
        visit(self);
        self.owners.pop();
    }
}

/// The last name of a type's path.
fn type_name(ty: &syn::Type) -> String {
    match ty {
        syn::Type::Path(path) => {
            let last = path.path.segments.last();
            last.map(|last| last.ident.to_string()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// The lines from `fn` to the end of the body: attributes and comments do not count.
fn lines(signature: &syn::Signature, block: &syn::Block) -> usize {
    let begin = signature.fn_token.span.start().line;
    let end = block.brace_token.span.close().end().line;
    end - begin + 1
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, lines(&item.sig, &item.block));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, lines(&item.sig, &item.block));
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        match &item.default {
            Some(block) => self.function(&item.sig.ident, lines(&item.sig, block)),
            None => self.declare(&item.sig.ident),
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.inside(type_name(&item.self_ty), |this| {
            visit::visit_item_impl(this, item);
        });
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.declare(&item.ident);
        self.inside(item.ident.to_string(), |this| {
            visit::visit_item_trait(this, item)
        });
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.declare(&item.ident);
        self.inside(item.ident.to_string(), |this| {
            for variant in &item.variants {
                this.declare(&variant.ident);
            }
        });
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.declare(&item.ident);
        self.inside(item.ident.to_string(), |this| {
            for name in item.fields.iter().filter_map(|field| field.ident.as_ref()) {
                this.declare(name);
            }
        });
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.declare(&item.ident);
        self.inside(item.ident.to_string(), |this| {
            visit::visit_item_mod(this, item)
        });
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.declare(&item.ident);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.declare(&item.ident);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.declare(&item.ident);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.declare(&item.ident);
    }
}

#[cfg(test)]
pub(super) fn of(files: &[(&str, &str)]) -> Syntax {
    let mut syntax = Syntax::default();
    for (path, text) in files {
        syntax.add(path, text).unwrap();
    }
    syntax
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_their_type_or_module() {
        let text =
            "enum E { V }\nimpl E {\n    /// A.\n    fn f() {\n        1;\n    }\n}\nfn g() {}\n";
        let syntax = of(&[("src/a/mod.rs", text), ("src/b.rs", "trait T { fn h(); }")]);
        let has = |owner, name| syntax.files(owner, name).count() == 1;
        assert!(has("E", "V") && has("E", "f") && has("a", "g") && has("T", "h") && has("b", "T"));
        assert!(!has("E", "g") && !has("b", "h"));
        assert!(syntax.has_owner("T") && !syntax.has_owner("V"));
        assert_eq!(syntax.functions[0].lines, 3);
    }
}
