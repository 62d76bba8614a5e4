//! What is not yet as it should be: a list that may only become shorter.

use std::collections::BTreeSet;

use shimwright_testenv::error::Result;

use super::tree::Tree;

/// Each line is the name of a check and what it lets pass.
const FILE: &str = "xtask/src/tidy/exceptions.txt";

#[derive(Debug, Default)]
pub(super) struct Exceptions {
    listed: Vec<String>,
    used: BTreeSet<String>,
}

impl Exceptions {
    pub(super) fn read(tree: &Tree) -> Self {
        Self::parse(&tree.text(FILE))
    }

    fn parse(text: &str) -> Self {
        Self {
            listed: text.lines().map(str::to_owned).collect(),
            used: BTreeSet::new(),
        }
    }

    /// Whether a check lets this pass, which is asked only for what is not as it should be.
    pub(super) fn has(&mut self, check: &str, what: &str) -> bool {
        let line = format!("{check} {what}");
        let is_listed = self.listed.contains(&line);
        if is_listed {
            self.used.insert(line);
        }
        is_listed
    }

    /// Those that nothing has asked for: once all checks have run, they are needed no longer.
    pub(super) fn unneeded(&self) -> Vec<String> {
        let lines = self.listed.iter().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| !line.is_empty() && !self.used.contains(*line))
            .map(|line| {
                format!(
                    "{FILE}: {line:?} is needed no longer; `cargo xtask tidy --update` removes it"
                )
            })
            .collect()
    }

    /// Writes the list without what is not needed.
    pub(super) fn shorten(&mut self, tree: &Tree) -> Result<()> {
        let used = &self.used;
        self.listed
            .retain(|line| line.is_empty() || line.starts_with('#') || used.contains(line));
        tree.write(FILE, &(self.listed.join("\n") + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        let mut exceptions = Exceptions::parse("# why\nfile a.rs\nfile b.rs\n");
        assert!(exceptions.has("file", "a.rs"));
        assert!(!exceptions.has("file", "c.rs"));
        let unneeded = exceptions.unneeded();
        assert_eq!(unneeded.len(), 1);
        assert!(unneeded[0].contains("file b.rs"), "{unneeded:?}");
    }
}
