//! What the user asked for.

use std::path::PathBuf;

use shimwright_testenv::error::{Error, Result, error};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Fewer samples of everything.
    pub(super) quick: bool,
    /// Measured instead of our Wasmtime shim.
    pub(super) shim: Option<PathBuf>,
    /// Measured beside it.
    pub(super) peer: Option<PathBuf>,
    /// The command line of Wasmtime, for `serve` and for programs that compute.
    pub(super) wasmtime: Option<PathBuf>,
    /// How many idle containers there are in the end.
    containers: Option<usize>,
    pub(super) save: Option<PathBuf>,
    pub(super) baseline: Option<PathBuf>,
    /// Scenarios whose names hold this text.
    only: Option<String>,
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(option) = args.next() {
            if option == "--quick" {
                options.quick = true;
                continue;
            }
            let path = match option.as_str() {
                "--shim" => &mut options.shim,
                "--peer" => &mut options.peer,
                "--wasmtime" => &mut options.wasmtime,
                "--save" => &mut options.save,
                "--baseline" => &mut options.baseline,
                "--containers" => {
                    let number = args.next().and_then(|value| value.parse().ok());
                    let number = number.filter(|number| *number >= FEW);
                    let least = || error!("--containers needs a number of {FEW} or more");
                    options.containers = Some(number.ok_or_else(least)?);
                    continue;
                }
                "--only" => {
                    options.only = Some(args.next().ok_or_else(|| missing(option))?.clone());
                    continue;
                }
                unknown => {
                    return Err(error!(
                        "bench does not know {unknown}, but --quick, --shim, --peer, --wasmtime, \
                         --containers, --only, --save and --baseline"
                    ));
                }
            };
            *path = Some(args.next().ok_or_else(|| missing(option))?.into());
        }
        Ok(options)
    }

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

fn missing(option: &str) -> Error {
    error!("{option} needs a value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        Options::parse(&crate::words(words))
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
        let options = parse(&["--shim", "/a", "--save", "--quick", "--only", "churn"]).unwrap();
        assert_eq!(options.save, Some("--quick".into()));
        assert!(!options.quick);
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
