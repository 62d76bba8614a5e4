//! One image and one command on every engine: the same output, and the same exit status.

use shimwright_testenv::error::{Result, ensure};

use super::{Case, Needs};
use crate::stage::Stage;

pub(crate) const CASES: &[Case] = &[Case::new(
    "every engine does the same",
    Needs::Ours,
    the_same,
)];

/// A guest, its arguments, and options of `ctr run`.
type Command = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const COMMANDS: [Command; 15] = [
    ("hello", &["once", "more"], &[]),
    ("exit-code", &["0"], &[]),
    ("exit-code", &["3"], &[]),
    ("exit-code", &["200"], &[]),
    ("exit-code", &["-1"], &[]),
    ("trap", &[], &[]),
    ("stack-overflow", &[], &[]),
    ("streams", &[], &[]),
    ("args", &["one", "two words", ""], &[]),
    ("env", &[], &["--env", "FIRST=1", "--env", "EMPTY="]),
    ("files", &[], &[]),
    ("files", &[], &["--read-only"]),
    ("clocks-random", &[], &[]),
    ("reactor#greet", &[], &[]),
    ("missing-import", &[], &[]),
];

fn the_same(stage: &mut Stage) -> Result<()> {
    for (guest, args, options) in COMMANDS {
        let mut expected = None;
        // The first is the measure of the others.
        for engine in shimwright_engines::installed() {
            let runtime = engine.runtime;
            let container = stage.guest(guest).args(args).option(options).on(runtime);
            let finished = container.run(stage)?;
            let found = (finished.code, finished.stdout);
            let expected = expected.get_or_insert_with(|| found.clone());
            ensure!(
                found == *expected,
                "{guest} {args:?} {options:?}: {runtime} gives {found:?} instead of {expected:?}; \
                 stderr {:?}",
                finished.stderr
            );
        }
    }
    Ok(())
}
