//! Runs the cases against one engine.

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use shimwright_core::{Artifact, BoxError, Engine, Kind, Options, Shim, Wasm, testing};

use crate::case::{Answer, Case, Check, Form, Run};
use crate::cases;
use crate::guest::{self, Subject};
use crate::report;
use crate::serving::{Prepared, Served};

/// A case that an engine is known not to pass, and why.
///
/// A gap whose case passes fails the suite, so a list of gaps is never out of date. Where the case is
/// about a proposal of WebAssembly, the engine has to refuse the guest with a reason that names it.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    pub(crate) case: &'static str,
    pub(crate) reason: &'static str,
}

impl Gap {
    /// A gap; `reason` is shown in the documentation.
    pub const fn new(case: &'static str, reason: &'static str) -> Self {
        Self { case, reason }
    }
}

/// The suite for one engine.
#[derive(Debug)]
pub struct Suite {
    name: &'static str,
    shim: Shim,
    gaps: &'static [Gap],
}

impl Suite {
    /// A suite for the engine of this name, built as [`Shim::new`] builds it.
    pub fn new<E: Engine>(name: &'static str, engine: fn(&Options) -> Result<E, BoxError>) -> Self {
        Self {
            name,
            shim: Shim::new(name, env!("CARGO_PKG_VERSION"), engine),
            gaps: &[],
        }
    }

    /// The suite for an engine that its shim has [with libraries](Shim::with_libraries): each runner
    /// calls [`Engine::load`]. The test itself has to be linked to them, and may be told where they
    /// are by `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn with_libraries(self) -> Self {
        // Nothing looks for the directory, as the test is what is executed.
        let shim = self.shim.with_libraries("none", "");
        Self { shim, ..self }
    }

    /// The cases that the engine is known not to pass.
    #[must_use]
    pub fn gaps(self, gaps: &'static [Gap]) -> Self {
        Self { gaps, ..self }
    }

    /// Does what the command line asks for. Without arguments all cases run.
    ///
    /// It has to be the first and only thing that `main` does: this program is also executed as the
    /// runner of each guest, and is then the same as that of a shim.
    pub fn main(self) -> ExitCode {
        if testing::is_runner() {
            return self.shim.main();
        }
        let engine = match testing::engine(&self.shim) {
            Ok(engine) => engine,
            Err(error) => {
                eprintln!("{}", testing::chain(&*error));
                return ExitCode::FAILURE;
            }
        };
        let suite = Running {
            name: self.name,
            subject: Subject {
                name: self.name,
                shim: &self.shim,
                engine: &*engine,
            },
            gaps: self.gaps,
        };
        match Command::parse(env::args().skip(1)) {
            Command::List => report::list(),
            Command::MarkdownCases => report::markdown_cases(),
            Command::Markdown => suite.markdown(),
            Command::Test { filters, exact } => suite.test(&filters, exact),
        }
    }
}

/// What the command line asks for.
enum Command {
    List,
    Markdown,
    MarkdownCases,
    /// Run the cases whose name matches one of the filters, or all.
    Test {
        filters: Vec<String>,
        exact: bool,
    },
}

impl Command {
    fn parse(args: impl Iterator<Item = String>) -> Self {
        let (mut filters, mut exact) = (Vec::new(), false);
        for arg in args {
            match arg.as_str() {
                "--list" => return Self::List,
                "--markdown" => return Self::Markdown,
                "--markdown-cases" => return Self::MarkdownCases,
                "--exact" => exact = true,
                // Options of the usual harness, such as --nocapture, that `cargo test` passes to
                // every test.
                option if option.starts_with('-') => {}
                _ => filters.push(arg),
            }
        }
        Self::Test { filters, exact }
    }
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it must.
    Passed,
    /// The case is about something this engine does not have, and says so.
    Refused(String),
    /// It is known not to pass.
    Gap(&'static str),
    /// Otherwise.
    Failed(String),
}

/// What an engine says of a guest before it runs.
enum Accepted {
    Run,
    /// The case is about something that the engine does not have.
    Refused(String),
    /// It does not take this core module.
    Rejected(String),
}

struct Running<'a> {
    name: &'static str,
    subject: Subject<'a>,
    gaps: &'static [Gap],
}

impl Running<'_> {
    fn test(&self, filters: &[String], exact: bool) -> ExitCode {
        let wanted = |case: &&Case| {
            filters.is_empty()
                || filters.iter().any(|filter| {
                    if exact {
                        case.name == filter
                    } else {
                        case.name.contains(filter.as_str())
                    }
                })
        };
        let start = Instant::now();
        let cases: Vec<&Case> = cases::all().filter(wanted).collect();
        report::start(self.name, cases.len());
        let mut outcomes = Vec::new();
        for gap in self
            .gaps
            .iter()
            .filter(|gap| !cases::all().any(|case| case.name == gap.case))
        {
            let outcome = Outcome::Failed("a gap for a case that does not exist".to_owned());
            report::case(gap.case, &outcome);
            outcomes.push((gap.case, outcome));
        }
        for case in cases {
            let outcome = self.outcome(case);
            report::case(case.name, &outcome);
            outcomes.push((case.name, outcome));
        }
        report::end(&outcomes, start.elapsed())
    }

    /// Runs a case, knowing the gaps.
    fn outcome(&self, case: &Case) -> Outcome {
        let outcome = self.check(case);
        let Some(gap) = self.gaps.iter().find(|gap| gap.case == case.name) else {
            return outcome;
        };
        match outcome {
            Outcome::Failed(_) => match self.unreadable(case) {
                Some(why) => Outcome::Failed(why),
                None => Outcome::Gap(gap.reason),
            },
            _ => Outcome::Failed(format!("it passes, and is no gap any more: {}", gap.reason)),
        }
    }

    /// What is wrong with how the engine says that it lacks what a case needs.
    fn unreadable(&self, case: &Case) -> Option<String> {
        let run = case.check.run()?;
        let lacking = run.lacking(run.needs?);
        match self.accepted(&lacking) {
            Ok(Accepted::Rejected(reason)) if lacking.rejects(&reason) => None,
            Ok(Accepted::Rejected(reason) | Accepted::Refused(reason)) => Some(reason),
            Ok(Accepted::Run) => guest::check(self.subject, &lacking)
                .err()
                .map(|error| testing::chain(&*error)),
            Err(error) => Some(testing::chain(&*error)),
        }
    }

    fn check(&self, case: &Case) -> Outcome {
        if let Some(run) = case.check.run() {
            match self.accepted(run) {
                Ok(Accepted::Run) => {}
                Ok(Accepted::Refused(reason)) => return Outcome::Refused(reason),
                Ok(Accepted::Rejected(reason)) if run.rejects(&reason) => return Outcome::Passed,
                Ok(Accepted::Rejected(reason)) => {
                    return Outcome::Failed(format!("a core module was refused: {reason}"));
                }
                Err(error) => return Outcome::Failed(testing::chain(&*error)),
            }
        }
        let subject = self.subject;
        let result = match &case.check {
            Check::Ask(ask) => ask(subject.engine),
            Check::Run(run) => guest::check(subject, run).map(|()| Answer::Right),
            Check::Serve(Served { run, talk }) => {
                talk(Prepared { subject, run }).map(|()| Answer::Right)
            }
        };
        match result {
            Ok(Answer::Right) => Outcome::Passed,
            Ok(Answer::NoPrecompiler) => Outcome::Refused(NO_PRECOMPILER.to_owned()),
            Err(error) => Outcome::Failed(testing::chain(&*error)),
        }
    }

    /// Whether this engine has to run the guest.
    fn accepted(&self, run: &Run) -> Result<Accepted, BoxError> {
        let engine = self.subject.engine;
        if run.form == Form::Precompiled && engine.precompiler().is_none() {
            return Ok(Accepted::Refused(NO_PRECOMPILER.to_owned()));
        }
        if let Some((limit, _)) = run.limit
            && !engine.enforced_limits().contains(&limit)
        {
            let reason = format!("this engine cannot keep to {limit}");
            return Ok(Accepted::Refused(reason));
        }
        let artifact = Artifact::Wasm(Wasm::new(run.wasm.to_vec())?);
        let refused = match engine.accepts(&artifact) {
            Err(refusal) => refusal.to_string(),
            Ok(()) => match engine.validator().map(|all| all.validate(run.wasm)) {
                None | Some(Ok(())) => return Ok(Accepted::Run),
                Some(Err(error)) => error.to_string(),
            },
        };
        match artifact.kind() {
            _ if refused.is_empty() => Err("refused without a reason".into()),
            Kind::Module => Ok(Accepted::Rejected(refused)),
            _ => Ok(Accepted::Refused(refused)),
        }
    }

    /// Prints what the engine does not pass, from what it says, without running a guest.
    fn markdown(&self) -> ExitCode {
        let rows = cases::all().filter_map(|case| {
            if let Some(gap) = self.gaps.iter().find(|gap| gap.case == case.name) {
                return Some((case.name, Outcome::Gap(gap.reason)));
            }
            let outcome = match case.check.run() {
                None => self.check(case),
                Some(run) => match self.accepted(run) {
                    Ok(Accepted::Run) => Outcome::Passed,
                    Ok(Accepted::Rejected(reason)) if run.rejects(&reason) => Outcome::Passed,
                    Ok(Accepted::Refused(reason) | Accepted::Rejected(reason)) => {
                        Outcome::Refused(reason)
                    }
                    Err(error) => Outcome::Failed(error.to_string()),
                },
            };
            (outcome != Outcome::Passed).then_some((case.name, outcome))
        });
        report::markdown(&rows.collect::<Vec<_>>())
    }
}

const NO_PRECOMPILER: &str = "this engine has no precompiler";

#[cfg(test)]
mod tests {
    use shimwright_core::{Exit, Workload};

    use super::*;

    /// Refuses nothing and has no precompiler.
    struct Fake;

    impl Engine for Fake {
        fn run(&self, _workload: &Workload) -> Result<Exit, BoxError> {
            Err("not for running".into())
        }
    }

    fn outcome(gaps: &'static [Gap], ask: fn(&dyn Engine) -> Result<Answer, BoxError>) -> Outcome {
        let case = Case {
            name: "case",
            asserts: "nothing",
            check: Check::Ask(ask),
        };
        let shim = Shim::new("fake", "0", |_| Ok(Fake));
        let subject = Subject {
            name: "fake",
            shim: &shim,
            engine: &Fake,
        };
        Running {
            name: "fake",
            subject,
            gaps,
        }
        .outcome(&case)
    }

    const GAPS: &[Gap] = &[Gap::new("case", "why")];

    #[test]
    fn a_gap_excuses_a_failure() {
        assert_eq!(
            outcome(&[], |_| Err("wrong".into())),
            Outcome::Failed("wrong".to_owned())
        );
        assert_eq!(outcome(GAPS, |_| Err("wrong".into())), Outcome::Gap("why"));
    }

    #[test]
    fn a_gap_that_passes_fails() {
        assert_eq!(outcome(&[], |_| Ok(Answer::Right)), Outcome::Passed);
        assert!(matches!(
            outcome(GAPS, |_| Ok(Answer::Right)),
            Outcome::Failed(_)
        ));
        assert!(matches!(
            outcome(GAPS, |_| Ok(Answer::NoPrecompiler)),
            Outcome::Failed(_)
        ));
    }

    #[test]
    fn a_case_about_a_precompiler_needs_one() {
        let refused = Outcome::Refused(NO_PRECOMPILER.to_owned());
        assert_eq!(outcome(&[], |_| Ok(Answer::NoPrecompiler)), refused);
    }
}
