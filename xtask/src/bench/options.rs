//! What the user asked for.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Fewer samples of everything
    #[arg(long)]
    pub(super) quick: bool,
    /// A shim instead of our Wasmtime shim
    #[arg(long, value_name = "PATH")]
    pub(super) shim: Option<PathBuf>,
    /// A shim to be measured beside it
    #[arg(long, value_name = "PATH")]
    pub(super) peer: Option<PathBuf>,
    /// The command line of Wasmtime, for `serve` and for programs that compute
    #[arg(long, value_name = "PATH")]
    pub(super) wasmtime: Option<PathBuf>,
    /// How many idle containers there are in the end
    #[arg(long, value_name = "N", value_parser = containers)]
    containers: Option<usize>,
    /// The scenarios whose names hold this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the report to a file
    #[arg(long, value_name = "FILE")]
    pub(super) save: Option<PathBuf>,
    /// Compare with a report that was saved
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
}

fn containers(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number >= FEW);
    number.ok_or_else(|| format!("it takes a number of {FEW} or more"))
}

impl Options {
    /// How many samples, of so many usual ones.
    pub(super) fn samples(&self, usual: usize) -> usize {
        if self.quick { usual / 5 } else { usual }
    }

    pub(super) fn containers(&self) -> usize {
        self.containers.unwrap_or(if self.quick { 60 } else { 500 })
    }

    pub(super) fn includes(&self, scenario: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|text| scenario.contains(text.as_str()))
    }

    /// The files that must be there.
    pub(super) fn programs(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.shim, &self.peer, &self.wasmtime]
            .into_iter()
            .flatten()
    }
}

/// The number of containers whose memory has a target.
pub(super) const FEW: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, clap::Error> {
        crate::parse(words)
    }

    #[test]
    fn quick_takes_fewer_samples_and_containers() {
        let usual = parse(&[]).unwrap();
        assert_eq!((usual.samples(100), usual.containers()), (100, 500));
        let quick = parse(&["--quick"]).unwrap();
        assert_eq!((quick.samples(100), quick.containers()), (20, 60));
        let both = parse(&["--containers", "30", "--quick"]).unwrap();
        assert_eq!(both.containers(), 30);
    }

    #[test]
    fn options_take_their_values() {
        let options = parse(&["--shim", "/a", "--save", "b", "--only", "churn"]).unwrap();
        assert_eq!(options.save, Some("b".into()));
        assert_eq!(options.programs().collect::<Vec<_>>(), ["/a"]);
        assert!(options.includes("churn_8") && !options.includes("http"));
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        for (words, name) in [
            (&["--nonsense"][..], "--nonsense"),
            (&["--save"], "--save"),
            (&["--only"], "--only"),
            (&["--containers", "3"], "--containers"),
            (&["--containers", "many"], "--containers"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
