//! Values of limits: how they are written, and which of two allows less.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use crate::engine::outbound::{NotADestination, Outbound};

/// What a guest sees of its image, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rootfs {
    /// Nothing but the mounts of the spec.
    None,
    /// The root file system, which cannot be written.
    ReadOnly,
    /// As the spec says.
    ReadWrite,
}

/// The network of a guest, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// A namespace of its own, with nothing in it.
    None,
    /// As the spec says.
    Container,
}

impl Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        })
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Container => "container",
        })
    }
}

/// A text that is no value: the caller has the words for what would be.
pub(crate) struct NoValue;

impl FromStr for Rootfs {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        one_of(text, [Self::None, Self::ReadOnly, Self::ReadWrite])
    }
}

impl FromStr for Network {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        one_of(text, [Self::None, Self::Container])
    }
}

fn one_of<T: Display, const N: usize>(text: &str, known: [T; N]) -> Result<T, NoValue> {
    let mut known = known.into_iter();
    known.find(|known| known.to_string() == text).ok_or(NoValue)
}

/// A value that can be made narrower.
pub(super) trait Setting: Clone {
    /// Reads a value from text.
    ///
    /// # Errors
    ///
    /// `None` if the text has not the form of a value, or what is wrong inside.
    fn read(text: &str) -> Result<Self, Option<String>>;

    /// Whether it gives a guest no more than `most` does.
    fn is_within(&self, most: &Self) -> bool;

    /// How it is written.
    fn text(&self) -> String;
}

impl<T: Ord + Display + Clone + FromStr> Setting for T {
    fn read(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|_| None)
    }

    fn is_within(&self, most: &Self) -> bool {
        self <= most
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// [`Outbound`] as it is written: the contract's own type cannot be serialized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub(crate) struct Destinations(pub(crate) Outbound);

impl TryFrom<Vec<String>> for Destinations {
    type Error = NotADestination;

    fn try_from(list: Vec<String>) -> Result<Self, NotADestination> {
        Outbound::new(list).map(Self)
    }
}

impl From<Destinations> for Vec<String> {
    fn from(Destinations(outbound): Destinations) -> Self {
        outbound.list()
    }
}

impl Setting for Destinations {
    fn read(text: &str) -> Result<Self, Option<String>> {
        let outbound = Outbound::new(list(text).ok_or(None)?);
        outbound.map(Self).map_err(|error| Some(error.to_string()))
    }

    fn is_within(&self, most: &Self) -> bool {
        self.0.is_within(&most.0)
    }

    fn text(&self) -> String {
        list_text(self.0.list())
    }
}

impl Setting for Environment {
    fn read(text: &str) -> Result<Self, Option<String>> {
        Self::new(list(text).ok_or(None)?).map_err(|error| Some(error.to_string()))
    }

    fn is_within(&self, most: &Self) -> bool {
        Self::is_within(self, most)
    }

    fn text(&self) -> String {
        list_text(self.clone().into())
    }
}

/// A value from text that comes from `source`.
pub(super) fn parse<T: Setting>(
    text: &str,
    source: &str,
    what: &str,
    is_valid: fn(&T) -> bool,
) -> Result<T, String> {
    match T::read(text) {
        Ok(value) if is_valid(&value) => Ok(value),
        Err(Some(reason)) => Err(format!("{source}: {reason}")),
        Ok(_) | Err(None) => Err(format!("{source}: {text:?} is not {what}")),
    }
}

/// Refuses a value that was read in another way and cannot be one.
pub(super) fn check<T: Setting>(
    value: &Option<T>,
    key: &str,
    what: &str,
    is_valid: fn(&T) -> bool,
) -> Result<(), String> {
    match value {
        Some(value) if !is_valid(value) => Err(format!("{key}: {} is not {what}", value.text())),
        _ => Ok(()),
    }
}

/// The value that is left of the node's and the wanted one.
pub(super) fn narrower<T: Setting>(
    key: &str,
    most: &Option<T>,
    wanted: &Option<T>,
    source: &str,
) -> Result<Option<T>, String> {
    match (most, wanted) {
        (Some(most), Some(wanted)) if !wanted.is_within(most) => Err(format!(
            "{key} may be narrowed only: it is {} in {source}, and {} on this node",
            wanted.text(),
            most.text()
        )),
        (most, wanted) => Ok(wanted.as_ref().or(most.as_ref()).cloned()),
    }
}

/// The word for an empty list, which no text at all may be a mistake for.
const EMPTY: &str = "none";

/// A list in one text, separated by commas or spaces; none if there is nothing in it.
fn list(text: &str) -> Option<Vec<&str>> {
    if text == EMPTY {
        return Some(Vec::new());
    }
    let words = text.split(|c: char| c == ',' || c.is_whitespace());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then_some(words)
}

fn list_text(list: Vec<String>) -> String {
    if list.is_empty() {
        return EMPTY.to_owned();
    }
    list.join(" ")
}
