//! The conversation with the program inside, which is the same under both runtimes.

use serde_json::{Value, json};
use shimwright_testkit::{Input, Output, Result};

use crate::observe;
use crate::{Case, Stage};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// All that was seen.
    pub(crate) observed: Value,
    /// What the runtime said.
    pub(crate) said: String,
}

/// A container's or an exec's streams, from the node.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Input,
    pub(crate) stdout: Output,
    /// None if there is a terminal.
    pub(crate) stderr: Option<Output>,
}

impl Streams {
    /// FIFOs in the place of a run.
    pub(crate) fn new(stage: &Stage, name: &str, terminal: bool) -> Result<Self> {
        let path = |stream: &str| stage.node(&format!("{name}.{stream}"));
        let stderr = (!terminal).then(|| Output::new(&path("stderr")));
        Ok(Self {
            stdin: Input::new(&path("stdin"))?,
            stdout: Output::new(&path("stdout"))?,
            stderr: stderr.transpose()?,
        })
    }

    /// Their paths, as a request has them.
    pub(crate) fn paths(&self) -> [String; 3] {
        let stderr = self.stderr.as_ref().map(Output::path);
        [
            self.stdin.path(),
            self.stdout.path(),
            stderr.unwrap_or_default(),
        ]
    }

    /// The line with this number that the program inside has written, unless it has ended without.
    pub(crate) fn line(&self, number: usize) -> Result<Option<Value>> {
        self.stdout.find(|bytes, ended| {
            let text = String::from_utf8_lossy(bytes);
            let complete = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let mut objects = complete.filter(|line| line.starts_with('{'));
            match objects.nth(number).map(serde_json::from_str) {
                Some(object) => Some(object.ok()),
                None => ended.then_some(None),
            }
        })
    }

    /// Has the program inside go on.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        Ok(self.stdin.write(format!("{line}\n").as_bytes())?)
    }

    /// What was written but for reports.
    pub(crate) fn rest(&self) -> Result<Value> {
        let text = self.stdout.text()?;
        let rest = text.lines().filter(|line| !line.starts_with('{'));
        let rest: Vec<&str> = rest.map(|line| line.trim_end_matches('\r')).collect();
        let stderr = self.stderr.as_ref().map(Output::text).transpose()?;
        Ok(json!({ "stdout": rest, "stderr": stderr }))
    }
}

/// A container that has been started.
pub(crate) trait Container {
    /// The pid of its first process.
    fn pid(&self) -> Result<u32>;
    /// Runs an exec in it.
    fn exec(&self, process: &Value) -> Result<Value>;
}

/// Talks with the program inside until it ends. None if it never said anything.
pub(crate) fn talk(
    case: &Case,
    stage: &Stage,
    streams: &mut Streams,
    container: &dyn Container,
) -> Result<Option<Value>> {
    let Some(inside) = streams.line(0)? else {
        return Ok(None);
    };
    let mut seen = json!({ "inside": inside, "node": observe::process(container.pid()?, stage) });
    if let Some(act) = case.meanwhile {
        act(stage);
        streams.say("again")?;
        seen["meanwhile"] = streams.line(1)?.unwrap_or_default();
        seen["meanwhile"]["node"]["mounts"] = observe::mounts(stage.place());
    }
    if let Some(change) = case.exec {
        let mut process = stage.spec["process"].clone();
        process["args"] = json!(["/probe", "report"]);
        change(&mut process);
        seen["exec"] = container.exec(&process)?;
    }
    streams.say("end")?;
    Ok(Some(seen))
}

/// Talks with an exec until it ends.
pub(crate) fn talk_to_exec(
    streams: &mut Streams,
    pid: u32,
    stage: &Stage,
) -> Result<Option<Value>> {
    let Some(inside) = streams.line(0)? else {
        return Ok(None);
    };
    let seen = json!({ "inside": inside, "node": observe::process(pid, stage) });
    streams.say("end")?;
    Ok(Some(seen))
}
/// What is compared of an exec: what was seen of it while it ran, how it ended, and what else it wrote.
pub(crate) fn of_exec(seen: Option<Value>, exit: impl Into<Value>, rest: Value) -> Value {
    match seen {
        Some(mut seen) => {
            seen["outcome"] = json!("runs");
            seen["exit"] = exit.into();
            seen["rest"] = rest;
            seen
        }
        None => json!({ "outcome": "refused" }),
    }
}
