//! How many tests passed and failed, also of programs that report as `cargo test` does.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use shimwright_testenv::error::{Result, ensure, error};
use shimwright_testenv::process::{self, Process};

/// How long a program of tests may take to remove its containers when it is interrupted.
const GRACE: Duration = Duration::from_secs(60);

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// What the command ends with.
    pub(crate) fn exit_code(self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Whether there was no test at all.
    pub(crate) fn is_empty(self) -> bool {
        self.passed + self.failed == 0
    }

    /// The numbers of a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
    pub(crate) fn reported(line: &str) -> Option<Self> {
        let line = line.strip_prefix("test result:")?;
        let number_before = |word: &str| {
            let mut words = line.split([' ', ';']).filter(|word| !word.is_empty());
            let mut last = None;
            words.find_map(|found| {
                if found == word {
                    last
                } else {
                    last = found.parse().ok();
                    None
                }
            })
        };
        Some(Self {
            passed: number_before("passed")?,
            failed: number_before("failed")?,
        })
    }

    /// Runs a program of tests, shows what it writes, and counts what it reports, which may be that
    /// no test has the name that was asked for.
    pub(crate) fn of(mut command: Command, deadline: Duration) -> Result<Self> {
        let what = process::describe(&command);
        let what = what.split(' ').next().unwrap_or_default();
        let (reader, writer) = std::io::pipe()?;
        command.stdout(Stdio::from(writer));
        let process = Process::spawn_as_is(command)?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reported: Option<Self> = None;
            for line in BufReader::new(reader)
                .lines()
                .map_while(std::result::Result::ok)
            {
                println!("{line}");
                if let Some(more) = Self::reported(&line) {
                    *reported.get_or_insert_default() += more;
                }
            }
            // The receiver is gone only if the deadline has passed.
            let _ = sender.send(reported);
        });
        let code = process.finish_or_ask(deadline, GRACE)?.code;
        let reported = receiver.recv_timeout(Duration::from_secs(5)).map_err(|_| {
            error!("{what} has ended, but something it left behind holds its stdout open")
        })?;
        let Some(mut tally) = reported else {
            return Err(error!("{what} ended with {code} and has run no test"));
        };
        if code != 0 && tally.failed == 0 {
            println!("{what} ended with {code} although no test has failed");
            tally.failed += 1;
        }
        Ok(tally)
    }

    /// The same, where no test at all is an error.
    pub(crate) fn of_some(command: Command, deadline: Duration) -> Result<Self> {
        let what = process::describe(&command);
        let tally = Self::of(command, deadline)?;
        ensure!(!tally.is_empty(), "`{what}` has run no test");
        Ok(tally)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn results_are_read() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = Tally::reported(line).unwrap();
        assert_eq!((tally.passed, tally.failed), (12, 3));
        assert!(Tally::reported("running 3 tests").is_none());
    }

    #[test]
    fn a_command_that_runs_no_test_is_an_error() {
        assert!(Tally::of(sh("exit 1"), DEADLINE).is_err());
        let none = "echo 'test result: ok. 0 passed; 0 failed; x'";
        assert!(Tally::of(sh(none), DEADLINE).unwrap().is_empty());
        assert!(Tally::of_some(sh(none), DEADLINE).is_err());
    }

    #[test]
    fn a_failure_without_a_failed_test_counts() {
        let command = sh("echo 'test result: ok. 1 passed; 0 failed; x'; exit 101");
        let tally = Tally::of(command, DEADLINE).unwrap();
        assert_eq!((tally.passed, tally.failed), (1, 1));
    }
}
