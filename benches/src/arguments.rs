//! Command lines of options with values, in any order.

use std::path::PathBuf;

use crate::Result;

/// The options of a command line that has been checked for unknown ones.
#[derive(Debug, Default)]
pub struct Arguments {
    values: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Arguments {
    /// Parses words, of which `options` are followed by a value and `flags` are not.
    ///
    /// # Errors
    ///
    /// Names a word that is neither, or an option without its value.
    pub fn parse(
        words: impl IntoIterator<Item = String>,
        options: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        let mut parsed = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if options.contains(&word.as_str()) {
                let value = words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value"))?;
                parsed.values.push((word, value));
            } else if flags.contains(&word.as_str()) {
                parsed.flags.push(word);
            } else {
                return Err(format!("there is no option {word} here").into());
            }
        }
        Ok(parsed)
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// Every value of an option, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.values.iter().filter(move |(option, _)| option == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The last value of an option.
    pub fn value<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.values(name).last()
    }

    /// The last value of an option, as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// The same of an option that must be given.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn required(&self, name: &str) -> Result<PathBuf> {
        self.path(name)
            .ok_or_else(|| format!("{name} is missing").into())
    }

    /// A number above zero, or what it is if the option is not given.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn number(&self, name: &str, otherwise: usize) -> Result<usize> {
        self.value(name).map_or(Ok(otherwise), positive)
    }
}

/// Reads a number above zero.
///
/// # Errors
///
/// If it is none.
pub fn positive(text: &str) -> Result<usize> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("not a positive number: {text}").into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments> {
        let words = words.iter().map(|word| (*word).to_owned());
        Arguments::parse(words, &["--shim", "-n", "--arg"], &["--shared"])
    }

    #[test]
    fn options_come_in_any_order_and_may_be_repeated() {
        let parsed = parse(&["--arg", "-n", "--shared", "-n", "3", "--arg", "--shared"]).unwrap();
        assert_eq!(
            parsed.values("--arg").collect::<Vec<_>>(),
            ["-n", "--shared"]
        );
        assert_eq!(parsed.number("-n", 7).unwrap(), 3);
        assert!(parsed.flag("--shared"));
        assert!(parsed.required("--shim").is_err());
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let parsed = parse(&[]).unwrap();
        assert_eq!(parsed.number("-n", 7).unwrap(), 7);
        assert_eq!(parsed.value("--shim"), None);
        assert!(!parsed.flag("--shared"));
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        for (words, name) in [
            (&["--nonsense"][..], "--nonsense"),
            (&["-n"], "-n"),
            (&["stray"], "stray"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        for text in ["0", "-1", "x", ""] {
            assert!(parse(&["-n", text]).unwrap().number("-n", 1).is_err());
        }
    }
}
