//! The differences that are allowed, each with a reason.

use crate::case::Cgroups;
use crate::compare::Difference;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The cases: `*` stands for any text.
    pub cases: &'static str,
    /// What differs, as [`Difference::place`] has it.
    pub place: &'static str,
    /// Where it does.
    pub cgroups: Cgroups,
    /// Why.
    pub reason: &'static str,
}

impl Allowed {
    /// Whether a row is about a case.
    pub fn is_about(&self, case: &str, is_v1: bool) -> bool {
        self.cgroups.includes(is_v1) && matches(self.cases, case)
    }

    /// Whether it allows a difference.
    pub fn allows(&self, difference: &Difference) -> bool {
        matches(self.place, &difference.place)
    }
}

/// All of them.
pub const ALL: &[Allowed] = &[];

/// Whether a text is what a pattern says, in which `*` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(found) = rest.find(part) else {
            return false;
        };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [("a", "a"), ("a*", "a"), ("*b*d", "abcd"), ("*", "")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("a*b", "a"), ("*b*b", "ab")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
