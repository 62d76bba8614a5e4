//! Runs the cases against one engine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use shimwright_core::{BoxError, Engine, Kind, Options};

use crate::case::{Answer, Case, Check, Form, Run};
use crate::cases::CASES;
use crate::child;
use crate::report;

/// A case that an engine is known not to pass, and why.
///
/// A gap whose case passes fails the suite, so a list of gaps is never out of date.
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
pub struct Suite<E> {
    name: &'static str,
    engine: fn(&Options) -> Result<E, BoxError>,
    gaps: &'static [Gap],
}

impl<E: Engine> Suite<E> {
    /// A suite for the engine of this name, built as [`Shim::new`](shimwright_core::Shim::new)
    /// builds it.
    pub fn new(name: &'static str, engine: fn(&Options) -> Result<E, BoxError>) -> Self {
        Self {
            name,
            engine,
            gaps: &[],
        }
    }

    /// The cases that the engine is known not to pass.
    #[must_use]
    pub fn gaps(self, gaps: &'static [Gap]) -> Self {
        Self { gaps, ..self }
    }

    /// Does what the command line asks for. Without arguments all cases run.
    pub fn main(self) -> ExitCode {
        let engine = match (self.engine)(&Options::default()) {
            Ok(engine) => engine,
            Err(error) => {
                eprintln!(
                    "cannot build the engine {}: {}",
                    self.name,
                    child::chain(&*error)
                );
                return ExitCode::FAILURE;
            }
        };
        let suite = Running {
            name: self.name,
            engine: &engine,
            gaps: self.gaps,
        };
        match Command::parse(env::args().skip(1)) {
            Command::Run { case, beside } => suite.run_child(&case, &beside),
            Command::List => report::list(),
            Command::MarkdownCases => report::markdown_cases(),
            Command::Markdown => suite.markdown(),
            Command::Test { filters, exact } => suite.test(&filters, exact),
        }
    }
}

/// What the command line asks for.
enum Command {
    /// Be the process in which a case's guest runs.
    Run {
        case: String,
        beside: PathBuf,
    },
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
        let mut args = args.peekable();
        if args.next_if(|arg| arg == child::RUN).is_some() {
            let case = args.next().unwrap_or_default();
            return Self::Run {
                case,
                beside: args.next().unwrap_or_default().into(),
            };
        }
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

struct Running<'a> {
    name: &'static str,
    engine: &'a dyn Engine,
    gaps: &'static [Gap],
}

impl Running<'_> {
    fn run_child(&self, name: &str, beside: &Path) -> ExitCode {
        match CASES.iter().find(|case| case.name == name) {
            Some(Case {
                check: Check::Run(run),
                ..
            }) => child::main(self.engine, run, beside),
            _ => {
                eprintln!("no case {name} runs a guest");
                ExitCode::FAILURE
            }
        }
    }

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
        let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
        report::start(self.name, cases.len());
        let mut outcomes = Vec::new();
        for gap in self
            .gaps
            .iter()
            .filter(|gap| !CASES.iter().any(|case| case.name == gap.case))
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
            Outcome::Failed(_) => Outcome::Gap(gap.reason),
            _ => Outcome::Failed(format!("it passes, and is no gap any more: {}", gap.reason)),
        }
    }

    fn check(&self, case: &Case) -> Outcome {
        let result = match &case.check {
            Check::Ask(ask) => ask(self.engine),
            Check::Run(run) => match self.refusal(run) {
                Ok(Some(reason)) => return Outcome::Refused(reason),
                Ok(None) => child::check(case.name, run).map(|()| Answer::Right),
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(Answer::Right) => Outcome::Passed,
            Ok(Answer::NoPrecompiler) => Outcome::Refused(NO_PRECOMPILER.to_owned()),
            Err(error) => Outcome::Failed(child::chain(&*error)),
        }
    }

    /// Why this engine need not run the guest. Core modules it must accept.
    fn refusal(&self, run: &Run) -> Result<Option<String>, BoxError> {
        if run.form == Form::Precompiled && self.engine.precompiler().is_none() {
            return Ok(Some(NO_PRECOMPILER.to_owned()));
        }
        if let Some((limit, _)) = run.limit
            && !self.engine.enforced_limits().contains(&limit)
        {
            return Ok(Some(format!("this engine cannot keep to {limit}")));
        }
        let as_wasm = Run {
            form: Form::Wasm,
            ..*run
        };
        let workload = child::workload(self.engine, &as_wasm, Path::new(""))?;
        match self.engine.accepts(&workload) {
            Ok(()) => Ok(None),
            Err(refusal) if refusal.to_string().is_empty() => {
                Err("refused without a reason".into())
            }
            Err(refusal) if workload.artifact().kind() == Kind::Module => {
                Err(format!("a core module was refused: {refusal}").into())
            }
            Err(refusal) => Ok(Some(refusal.to_string())),
        }
    }

    /// Prints what the engine does not pass, from what it says, without running a guest.
    fn markdown(&self) -> ExitCode {
        let rows = CASES.iter().filter_map(|case| {
            if let Some(gap) = self.gaps.iter().find(|gap| gap.case == case.name) {
                return Some((case.name, Outcome::Gap(gap.reason)));
            }
            let outcome = match &case.check {
                Check::Ask(_) => self.check(case),
                Check::Run(run) => match self.refusal(run) {
                    Ok(Some(reason)) => Outcome::Refused(reason),
                    Ok(None) => Outcome::Passed,
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
        Running {
            name: "fake",
            engine: &Fake,
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
