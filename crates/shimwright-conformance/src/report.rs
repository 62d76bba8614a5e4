//! What the suite prints, in the words of the usual test harness where they fit.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::cases;
use crate::suite::Outcome;

pub(crate) fn start(engine: &str, cases: usize) {
    print(&format!("\nrunning {cases} cases on {engine}\n"));
}

pub(crate) fn case(name: &str, outcome: &Outcome) {
    let text = match outcome {
        Outcome::Passed => "ok".to_owned(),
        Outcome::Refused(reason) => format!("refused ({reason})"),
        Outcome::Gap(reason) => format!("gap ({reason})"),
        Outcome::Failed(_) => "FAILED".to_owned(),
    };
    print(&format!("test {name} ... {text}\n"));
}

pub(crate) fn end(outcomes: &[(&str, Outcome)], took: Duration) -> ExitCode {
    let (mut passed, mut failed, mut refused, mut gaps) = (0, 0, 0, 0);
    let mut failures = String::new();
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Refused(_) => refused += 1,
            Outcome::Gap(_) => gaps += 1,
            Outcome::Failed(reason) => {
                failed += 1;
                failures.push_str(&format!("\n---- {name} ----\n{reason}\n"));
            }
        }
    }
    if failed > 0 {
        print(&format!("\nfailures:\n{failures}"));
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    print(&format!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {refused} refused; {gaps} gaps; \
         finished in {:.2}s\n\n",
        took.as_secs_f64(),
    ));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The cases as the usual harness lists tests.
pub(crate) fn list() -> ExitCode {
    print(
        &cases::all()
            .map(|case| format!("{}: test\n", case.name))
            .collect::<String>(),
    );
    ExitCode::SUCCESS
}

/// The table of cases for `docs/conformance.md`.
pub(crate) fn markdown_cases() -> ExitCode {
    print(&cases_table());
    ExitCode::SUCCESS
}

/// An engine's section of `docs/conformance.md`: what it does not pass, grouped by the reason.
pub(crate) fn markdown(exceptions: &[(&str, Outcome)]) -> ExitCode {
    let all = cases::all().count();
    let mut text = if exceptions.is_empty() {
        format!("Passes all {all} cases.\n")
    } else {
        format!(
            "Passes {} of {all} cases.\n\n| Cases | |\n| --- | --- |\n",
            all - exceptions.len()
        )
    };
    let mut reasons: Vec<&Outcome> = Vec::new();
    for (_, outcome) in exceptions {
        if !reasons.contains(&outcome) {
            reasons.push(outcome);
        }
    }
    for reason in reasons {
        let names: Vec<String> = exceptions
            .iter()
            .filter(|(_, outcome)| outcome == reason)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let reason = match reason {
            Outcome::Passed => continue,
            Outcome::Refused(reason) => format!("refused: {reason}"),
            Outcome::Gap(reason) => format!("gap: {reason}"),
            Outcome::Failed(reason) => format!("fails: {reason}"),
        };
        text.push_str(&format!("| {} | {reason} |\n", names.join(", ")));
    }
    text.push_str(&proposals(exceptions));
    print(&text);
    ExitCode::SUCCESS
}

/// What of WebAssembly an engine has, and what it refuses by its name.
fn proposals(exceptions: &[(&str, Outcome)]) -> String {
    let mut table = "\n| Proposal of WebAssembly | |\n| --- | --- |\n".to_owned();
    for case in cases::all() {
        if case.check.run().is_some_and(|run| run.needs.is_some()) {
            let is_refused = exceptions.iter().any(|(name, _)| *name == case.name);
            let outcome = if is_refused { "refused" } else { "runs" };
            table.push_str(&format!("| {} | {outcome} |\n", case.asserts));
        }
    }
    table
}

fn cases_table() -> String {
    let mut table = "| Case | What must be true |\n| --- | --- |\n".to_owned();
    for case in cases::all() {
        table.push_str(&format!("| `{}` | {} |\n", case.name, case.asserts));
    }
    table
}

/// Writes to standard output; there is nobody to tell if that is closed.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_has_the_table_of_cases() {
        let page = include_str!("../../../docs/conformance.md");
        assert!(
            page.contains(&cases_table()),
            "replace the table in docs/conformance.md by what --markdown-cases prints"
        );
    }
}
