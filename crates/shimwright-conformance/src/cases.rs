//! The tables of cases, by topic.

mod components;
mod ends;
mod functions;
mod given;
mod invalid;
mod limits;
mod precompiled;
mod proposals;
mod serving;
mod signals;

use shimwright_core::{BoxError, Engine};

use crate::case::{Answer, Case, Check, Run};
use crate::serving::{Prepared, Served};

/// The tables in the order of the documentation.
const TOPICS: &[&[Case]] = &[
    ends::CASES,
    signals::CASES,
    given::CASES,
    limits::CASES,
    functions::CASES,
    invalid::CASES,
    components::CASES,
    serving::CASES,
    precompiled::CASES,
    proposals::CASES,
];

/// Every case, in the order of the documentation.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().copied().flatten()
}

const fn run(name: &'static str, asserts: &'static str, run: Run) -> Case {
    Case {
        name,
        asserts,
        check: Check::Run(run),
    }
}

const fn ask(
    name: &'static str,
    asserts: &'static str,
    ask: fn(&dyn Engine) -> Result<Answer, BoxError>,
) -> Case {
    Case {
        name,
        asserts,
        check: Check::Ask(ask),
    }
}

const fn serve(
    name: &'static str,
    asserts: &'static str,
    run: Run,
    talk: fn(Prepared<'_>) -> Result<(), BoxError>,
) -> Case {
    Case {
        name,
        asserts,
        check: Check::Serve(Served { run, talk }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shimwright_guests as guest;

    use super::*;

    /// The guest of one engine's own tests, the one that benchmarks run and check, and the one that
    /// takes a read-only mount.
    const OF_OTHERS: [guest::Guest; 3] = [guest::WASMEDGE_SERVER, guest::COMPUTE, guest::READ_ONLY];

    #[test]
    fn every_guest_has_a_case() {
        let guests = guest::ALL.iter();
        for guest in guests.filter(|guest| !OF_OTHERS.contains(guest)) {
            let used =
                all().any(|case| case.check.run().is_some_and(|run| run.wasm == guest.wasm()));
            assert!(used, "no case for {guest:?}");
        }
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
