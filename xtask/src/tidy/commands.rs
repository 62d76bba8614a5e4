//! `cargo xtask` in documents: each command and option is there, and each command is in a document.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use shimwright_testenv::error::{Context, Result};
use shimwright_testenv::process;

use super::tree::Tree;

const DEADLINE: Duration = Duration::from_secs(60);

/// The usage text of this program, asked of itself.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Of each command.
    commands: BTreeMap<String, String>,
}

impl Usage {
    pub(super) fn read() -> Result<Self> {
        let mut usage = Self::parse(&help(&["help"])?);
        for (command, text) in &mut usage.commands {
            *text = help(&[command, "--help"])?;
        }
        Ok(usage)
    }

    /// The commands in the usage text of the whole program.
    fn parse(all: &str) -> Self {
        let lines = all.lines().filter_map(|line| line.strip_prefix("  "));
        let names = lines.filter_map(|line| {
            let name = line.split(' ').next()?;
            is_name(name).then(|| (name.to_owned(), String::new()))
        });
        Self {
            commands: names.filter(|(name, _)| name != "help").collect(),
        }
    }
}

fn help(args: &[&str]) -> Result<String> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(args);
    process::run(command, DEADLINE)?.success()
}

pub(super) fn check(tree: &Tree, usage: &Usage) -> Vec<String> {
    let mut problems = Vec::new();
    let mut told = BTreeSet::new();
    for path in tree.with_extension("md") {
        for (command, options) in calls(&tree.text(path)) {
            let Some(text) = usage.commands.get(&command) else {
                problems.push(format!("{path}: there is no `cargo xtask {command}`"));
                continue;
            };
            for option in options {
                let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                if !words.any(|word| word == option) {
                    problems.push(format!("{path}: `cargo xtask {command}` has no {option}"));
                }
            }
            told.insert(command);
        }
    }
    let untold = usage.commands.keys().filter(|name| !told.contains(*name));
    problems.extend(untold.map(|name| format!("no document has `cargo xtask {name}`")));
    problems
}

/// The commands of a document with their options. What follows `--` is for another program.
fn calls(text: &str) -> Vec<(String, Vec<String>)> {
    let mut calls = Vec::new();
    for line in text.lines() {
        for rest in line.split("cargo xtask ").skip(1) {
            let call = rest.split('`').next().unwrap_or_default();
            let mut words = call.split_whitespace();
            let Some(command) = words.next().filter(|word| is_name(word)) else {
                continue;
            };
            let words = words.take_while(|word| *word != "--" && *word != "#");
            let options = words.filter(|word| word.starts_with("--"));
            let options = options.map(|word| word.split('=').next().unwrap_or(word));
            calls.push((command.to_owned(), options.map(str::to_owned).collect()));
        }
    }
    calls
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree;

    #[test]
    fn commands_and_options_that_do_not_exist_are_found() {
        let mut usage =
            Usage::parse("usage: x\n\n  test [--all]   y\n                 z\n  vm  w\n  ci  v\n");
        assert_eq!(
            usage.commands.keys().collect::<Vec<_>>(),
            ["ci", "test", "vm"]
        );
        for text in usage.commands.values_mut() {
            "[--all] [--only TEXT]".clone_into(text);
        }
        let text = "`cargo xtask test --all -- --others` `cargo xtask test --al`\n\
                    `cargo xtask X`\n```\ncargo xtask gone --all\ncargo xtask vm --only a\n```\n";
        let (_kept, tree) = tree::of(&[("a.md", text)]);
        assert_eq!(
            check(&tree, &usage),
            [
                "a.md: `cargo xtask test` has no --al",
                "a.md: there is no `cargo xtask gone`",
                "no document has `cargo xtask ci`",
            ]
        );
    }
}
