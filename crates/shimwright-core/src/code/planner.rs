//! The planner: a separate process, without files of the node, network or privileges, that reads
//! the manifest of an application, or validates the program of an engine that does not compile.
//!
//! The engine parses these, with whatever parser it has, and they are the image's. So this must not
//! run in the launcher, which is root and has no walls around it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::code::application::{self, MAX_MANIFEST};
use crate::code::compiler::{Jail, Left};
use crate::config::node;
use crate::engine::application::{LayerRecord, Manifest, PlanRecord};
use crate::engine::{BoxError, Engine, Options};
use crate::error::{self, Context, Error};
use crate::process::role::{self, Failure};
use crate::runner::host::Host;
use crate::runner::libraries::Program;
use crate::sys;
use crate::sys::memory::Mapping;

/// How many bytes of memory of its own a planner may have.
const MEMORY: u64 = 256 << 20;
/// How many seconds it may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a planner is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Task {
    Plan,
    Validate,
}

/// How planners are executed.
#[derive(Debug)]
pub(crate) struct Planning<'a> {
    pub(crate) host: &'a Host,
    pub(crate) options: &'a serde_json::Map<String, serde_json::Value>,
    pub(crate) config: &'a node::Compile,
    pub(crate) empty: &'a Path,
    /// Hung up when nobody waits for it any more.
    pub(crate) wanted: BorrowedFd<'a>,
}

impl Planning<'_> {
    /// Has the engine read a manifest, in a planner. `encoded` is the manifest in memory that nobody
    /// can change, and `layers` are those of its image.
    ///
    /// Launcher process.
    ///
    /// # Errors
    ///
    /// `Invalid` with the engine's reason, or why its plan cannot be followed.
    pub(crate) fn run(&self, encoded: &File, layers: &[LayerRecord]) -> Result<PlanRecord, Error> {
        let mut output = sys::memory::sealable_memfd(c"plan").context("make a plan's memory")?;
        self.execute(Task::Plan, encoded, &output, "the manifest")?;
        let mut text = Vec::new();
        let read = output.rewind().and_then(|()| output.read_to_end(&mut text));
        read.context("read the plan")?;
        let plan: PlanRecord = serde_json::from_slice(&text).context("read the plan")?;
        application::check(&plan, layers)?;
        Ok(plan)
    }

    /// Has the engine validate a program, in a planner.
    ///
    /// Launcher process.
    ///
    /// # Errors
    ///
    /// `Invalid` with the engine's reason.
    pub(crate) fn validate(&self, wasm: &File) -> Result<(), Error> {
        let output = sys::memory::sealable_memfd(c"nothing").context("make a place for output")?;
        self.execute(Task::Validate, wasm, &output, "the module")
    }

    fn execute(&self, task: Task, input: &File, output: &File, what: &str) -> Result<(), Error> {
        let task = serde_json::to_string(&task).context("encode the task of a planner")?;
        let options = serde_json::to_string(self.options).context("encode the engine's options")?;
        let jail = Jail {
            uid: self.config.uid(rustix::process::getpid()),
            memory: MEMORY,
            // The deadline comes first, and is told as such.
            seconds: DEADLINE.as_secs() + 1,
            // No plan is larger than the manifest it is made of, but for what JSON adds.
            file: 2 * MAX_MANIFEST,
        };
        let jail = serde_json::to_string(&jail).context("encode the limits of a planner")?;
        let program = Program::of(self.host)?.command();
        let mut command = role::command(program, role::PLANNER, Cgroups::default());
        command
            .args([options, jail, task])
            .current_dir(self.empty)
            .stdin(input.try_clone().context("pass on the input")?)
            .stdout(output.try_clone().context("pass on the output")?);
        role::run(command, self.wanted, DEADLINE)
            .context("run the planner")?
            .map_err(|failure| Error::invalid(reason(&failure, what)))
    }
}

fn reason(failure: &Failure, what: &str) -> String {
    match failure {
        Failure::TooLong => format!(
            "{what} cannot be read within {} seconds",
            DEADLINE.as_secs()
        ),
        // How it ended says nothing of its input.
        Failure::Ended(reason, status) if reason.is_empty() => {
            format!("the process that read {what} ended with {status}")
        }
        other => other.to_string(),
    }
}

/// The planner's whole life: standard input to standard output.
pub(crate) fn main(host: &Host, args: impl Iterator<Item = String>) -> ExitCode {
    match run(host, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", error::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(host: &Host, mut args: impl Iterator<Item = String>) -> Result<(), BoxError> {
    let [options, jail, task] = std::array::from_fn(|_| args.next());
    let jail: Jail = serde_json::from_str(&jail.unwrap_or_default())?;
    jail.enter(Left::Nothing)?;
    let options = serde_json::from_str(&options.unwrap_or_default())?;
    let engine = host.engine(&Options::new(options))?;
    let input = Mapping::of_file(io::stdin().as_fd())?;
    match serde_json::from_str(&task.unwrap_or_default())? {
        Task::Plan => plan(&*engine, input),
        Task::Validate => {
            let validator = engine.validator();
            let validator = validator.ok_or("the engine validates no programs")?;
            validator.validate(input.as_ref())
        }
    }
}

fn plan(engine: &dyn Engine, input: Mapping) -> Result<(), BoxError> {
    let applications = engine.applications();
    let applications = applications.ok_or("the engine runs no applications")?;
    let manifest = Manifest::decode(input)?;
    let plan = applications.plan(&manifest, manifest.env())?.0;
    // The launcher does not trust this process and checks again. Here a plan that is far too large
    // fails with its reason, and not at the limit of the file.
    application::check(&plan, manifest.records())?;
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut output = io::BufWriter::new(output);
    serde_json::to_writer(&mut output, &plan)?;
    Ok(output.flush()?)
}
