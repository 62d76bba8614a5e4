//! What an engine does not pass of the conformance suite, as `docs/conformance.md` has it, which the
//! suites themselves print.

const PAGE: &str = include_str!("../../../../docs/conformance.md");

/// What an engine does not pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conformance {
    /// How many cases there are.
    pub(crate) cases: usize,
    pub(crate) passed: usize,
    /// Each with its reason.
    pub(crate) exceptions: Vec<(usize, String)>,
}

/// Of this engine; nothing if the page does not know it.
pub(crate) fn of(engine: &str) -> Option<Conformance> {
    parse(PAGE, engine)
}

fn parse(page: &str, engine: &str) -> Option<Conformance> {
    let mut lines = page.lines().skip_while(|line| {
        let name = line.strip_prefix("### ");
        !name.is_some_and(|name| name.eq_ignore_ascii_case(engine))
    });
    lines.next()?;
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with('#')).collect();
    let sentence = section.iter().find_map(|line| line.strip_prefix("Passes "));
    let numbers: Vec<usize> = sentence?
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let (passed, cases) = match numbers[..] {
        [all] => (all, all),
        [passed, all] => (passed, all),
        _ => return None,
    };
    let rows = section.iter().filter(|line| line.starts_with("| `"));
    let exceptions = rows.filter_map(|row| {
        let mut cells = row.trim_matches(['|', ' ']).split(" | ");
        let (names, reason) = (cells.next()?, cells.next()?);
        Some((names.split(", ").count(), reason.to_owned()))
    });
    Some(Conformance {
        cases,
        passed,
        exceptions: exceptions.collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn every_engine_of_ours_has_a_section() {
        for engine in shimwright_engines::ALL {
            let found = of(engine.name).unwrap();
            let excepted: usize = found.exceptions.iter().map(|(number, _)| number).sum();
            assert_eq!(found.passed + excepted, found.cases, "{}", engine.name);
        }
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn a_section_ends_at_the_next() {
        let page = "### A\nPasses all 3 cases.\n### B\nPasses 2 of 3 cases.\n\n| Cases | |\n| --- | --- |\n| `x` | gap: because |\n";
        assert_eq!(parse(page, "a").unwrap().exceptions, []);
        let b = parse(page, "b").unwrap();
        assert_eq!((b.passed, b.cases), (2, 3));
        assert_eq!(b.exceptions, [(1, "gap: because".to_owned())]);
    }
}
