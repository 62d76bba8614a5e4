//! The container's variables that a guest gets.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// Names of variables, and beginnings of such names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub(crate) struct Environment(Vec<Name>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Is(String),
    BeginsWith(String),
}

/// The text is not a valid name of a variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a variable, or the beginning of one and an asterisk")]
pub(crate) struct NotAName(String);

impl Environment {
    pub(crate) fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self, NotAName> {
        let names = names.into_iter().map(|name| parse(name.as_ref()));
        Ok(Self(names.collect::<Result<_, _>>()?))
    }

    /// Whether a guest is given the variable of this name.
    pub(crate) fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|allowed| match allowed {
            Name::Is(allowed) => name == allowed,
            Name::BeginsWith(beginning) => name.starts_with(beginning),
        })
    }

    /// Whether each name is among those of `most`.
    pub(crate) fn is_within(&self, most: &Self) -> bool {
        self.0.iter().all(|wanted| match wanted {
            Name::Is(name) => most.allows(name),
            Name::BeginsWith(wanted) => most.0.iter().any(|most| match most {
                Name::Is(_) => false,
                Name::BeginsWith(beginning) => wanted.starts_with(beginning),
            }),
        })
    }
}

fn parse(text: &str) -> Result<Name, NotAName> {
    let (name, is_beginning) = match text.strip_suffix('*') {
        Some(beginning) => (beginning, true),
        None => (text, false),
    };
    let is_name = (is_beginning || !name.is_empty())
        && !name.contains(|c: char| matches!(c, '=' | '*' | ',' | '\0') || c.is_whitespace());
    match (is_name, is_beginning) {
        (false, _) => Err(NotAName(text.to_owned())),
        (true, true) => Ok(Name::BeginsWith(name.to_owned())),
        (true, false) => Ok(Name::Is(name.to_owned())),
    }
}

impl TryFrom<Vec<String>> for Environment {
    type Error = NotAName;

    fn try_from(names: Vec<String>) -> Result<Self, NotAName> {
        Self::new(names)
    }
}

impl From<Environment> for Vec<String> {
    fn from(environment: Environment) -> Self {
        environment.0.iter().map(ToString::to_string).collect()
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(name) => write!(f, "{name}"),
            Self::BeginsWith(beginning) => write!(f, "{beginning}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(names: &[&str]) -> Environment {
        Environment::new(names).unwrap()
    }

    #[test]
    fn names_and_beginnings_decide() {
        let some = environment(&["PATH", "APP_*"]);
        assert!(
            ["PATH", "APP_", "APP_KEY"]
                .iter()
                .all(|name| some.allows(name))
        );
        assert!(
            !["PATHS", "APP", "app_key", ""]
                .iter()
                .any(|name| some.allows(name))
        );
        assert!(environment(&["*"]).allows("ANY"));
        assert!(!environment(&[]).allows("ANY"));
    }

    #[test]
    fn narrower_is_inside_the_names() {
        let node = environment(&["PATH", "APP_*"]);
        for inside in [&[][..], &["PATH"], &["APP_A", "APP_B*"], &["APP_*"]] {
            assert!(environment(inside).is_within(&node), "{inside:?}");
        }
        for outside in [&["HOME"][..], &["PATH*"], &["APP*"], &["*"], &["PATH", "X"]] {
            assert!(!environment(outside).is_within(&node), "{outside:?}");
        }
        assert!(node.is_within(&environment(&["*"])));
    }

    #[test]
    fn what_is_no_name_is_refused_and_named() {
        for wrong in ["", "A=B", "*A", "A*B*", "A B", "A,B", "A\0"] {
            let error = Environment::new([wrong]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{wrong:?} is not")), "{error}");
        }
    }
}
