//! Whole commands, each in turn with the others, so that all see the same machine.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::stats::{MILLISECONDS, Samples};
use crate::{Result, driver, interrupt};

/// A command and what it is called in the report.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    name: String,
    words: Vec<String>,
}

impl Named {
    /// Parses `NAME=["PROGRAM", "ARGUMENT", ...]`.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = || format!("not NAME=[\"PROGRAM\", ...]: {text}");
        let (name, words) = text.split_once('=').ok_or_else(malformed)?;
        let words: Value = serde_json::from_str(words).map_err(|_| malformed())?;
        let words = words.as_array().ok_or_else(malformed)?.iter();
        let words: Option<Vec<String>> =
            words.map(|word| word.as_str().map(str::to_owned)).collect();
        let words = words.filter(|words| !words.is_empty());
        Ok(Self {
            name: name.to_owned(),
            words: words.ok_or_else(malformed)?,
        })
    }

    fn run(&self) -> Result<f64> {
        interrupt::check()?;
        let begin = Instant::now();
        let output = Command::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.words[0]))?;
        let took = driver::milliseconds(begin);
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} ended with {}: {text}", self.name, output.status).into());
        }
        Ok(took)
    }
}

/// Runs each command so many times; once more before, which is not counted.
///
/// # Errors
///
/// If one of them fails.
pub fn run(commands: &[Named], number: usize) -> Result<Value> {
    let mut samples = vec![Samples::new(MILLISECONDS); commands.len()];
    for turn in 0..=number {
        for (command, samples) in commands.iter().zip(&mut samples) {
            let took = command.run()?;
            if turn > 0 {
                samples.push(took);
            }
        }
    }
    let mut report = json!({});
    for (command, samples) in commands.iter().zip(&samples) {
        report[&command.name] = samples.summary()?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn commands_are_lists_of_words() {
        let command = Named::parse(r#"a=["sh", "-c", "x=1"]"#).unwrap();
        assert_eq!(command.name, "a");
        assert_eq!(command.words, ["sh", "-c", "x=1"]);
        for malformed in ["a", "a=sh", "a=[]", "a=[1]", "[\"sh\"]"] {
            assert!(Named::parse(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn the_first_run_is_not_counted_and_a_failure_is_told() {
        let works = Named::parse(r#"works=["true"]"#).unwrap();
        let report = run(&[works], 3).unwrap();
        assert_eq!(report["works"]["number"], 3);
        let fails = Named::parse(r#"fails=["sh", "-c", "echo because >&2; exit 3"]"#).unwrap();
        let error = run(&[fails], 3).unwrap_err().to_string();
        assert!(
            error.contains("fails") && error.contains("because"),
            "{error}"
        );
    }
}
