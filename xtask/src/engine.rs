//! Engines as options of commands.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use shimwright_engines::Engine;

/// Reads the name of an engine.
pub(crate) fn any() -> impl TypedValueParser<Value = &'static Engine> {
    one_of(shimwright_engines::ALL.iter())
}

/// Reads the name of an engine that is installed.
pub(crate) fn installed() -> impl TypedValueParser<Value = &'static Engine> {
    one_of(shimwright_engines::installed())
}

fn one_of(
    engines: impl Iterator<Item = &'static Engine>,
) -> impl TypedValueParser<Value = &'static Engine> {
    PossibleValuesParser::new(engines.map(|engine| engine.name))
        .try_map(|name| shimwright_engines::by_name(&name).ok_or("there is no such engine"))
}

/// The engines that are named, or all of them.
pub(crate) fn or_all(named: &[&'static Engine]) -> Vec<&'static Engine> {
    if named.is_empty() {
        return shimwright_engines::ALL.iter().collect();
    }
    named.to_vec()
}
