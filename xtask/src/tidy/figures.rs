//! `cargo xtask tidy --figures`: how large the parts are, and which folder of core uses which.

use std::collections::BTreeSet;

use shimwright_testenv::error::Result;

use super::arrows;
use super::sizes;
use super::syntax::Syntax;
use super::tree::Tree;

/// How many of the largest are printed.
const MOST: usize = 10;

pub(super) fn print(tree: &Tree, syntax: &Syntax) -> Result<()> {
    println!("largest files:");
    for (lines, path) in sizes::files(tree).iter().take(MOST) {
        println!("  {lines:5}  {path}");
    }
    println!("longest functions:");
    for function in sizes::functions(syntax).iter().take(MOST) {
        println!(
            "  {:5}  {} in {}",
            function.lines, function.name, function.path
        );
    }
    let arrows = arrows::read(tree)?;
    println!("arrows between the folders of core: {}", arrows.len());
    let names: BTreeSet<_> = arrows.keys().map(|(from, _)| from).collect();
    for name in names {
        let ends = arrows.keys().filter(|(from, _)| from == name);
        let ends: Vec<_> = ends.map(|(_, to)| to.as_str()).collect();
        println!("  {name} -> {}", ends.join(", "));
    }
    let circles = arrows::circles(&arrows.into_keys().collect());
    println!("circles: {}", circles.len());
    for circle in circles {
        println!("  {}", circle.join(", "));
    }
    Ok(())
}
