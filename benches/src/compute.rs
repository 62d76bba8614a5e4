//! Programs that compute, on a shim and with the command line of its engine. Each measures its own
//! work, so starting, compiling and the container are not in the figures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use shimwright_guests::COMPUTE;
use shimwright_testkit::Shim;

use crate::driver::{self, Program};
use crate::stats::{MILLISECONDS, Samples};
use crate::{Result, interrupt};

/// The works of [`COMPUTE`], and what each does.
const WORKS: [(&str, &str); 4] = [
    (
        "integer",
        "lists are searched and sorted, matrices multiplied, numbers read by a state machine, all \
         of it into a CRC, as CoreMark does",
    ),
    ("float", "bodies attract each other, in double precision"),
    (
        "memory",
        "16 MiB are copied, and a chain is followed through all of them",
    ),
    ("json", "a document is written and read"),
];

/// The pod of all containers.
const POD: &str = "pod";

/// How long one work may take, interpreted and on a slow machine.
const WORKING: Duration = Duration::from_secs(10 * 60);

/// What CPython runs, and what it does.
const SCRIPTS: [(&str, &str, &str); 2] = [
    (
        "cpython",
        include_str!("compute/cpython.py"),
        "CPython counts words with a regular expression, sieves primes, and reads and writes a \
         document",
    ),
    (
        "sqlite",
        include_str!("compute/sqlite.py"),
        "SQLite, in CPython, fills a table of 20000 rows in memory, makes an index, and queries it",
    ),
];

/// What is measured.
#[derive(Debug)]
pub struct Options {
    /// The shim's executable.
    pub shim: PathBuf,
    /// How many times each work is done.
    pub number: usize,
    /// CPython for WASI, with the module `sqlite3`.
    pub python: Option<PathBuf>,
    /// The command line of the same engine.
    pub cli: Option<Cli>,
}

/// The command line of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    path: PathBuf,
    /// What stands between its name and the program.
    command: &'static [&'static str],
    /// What stands between the program and its arguments.
    separator: &'static [&'static str],
}

impl Cli {
    /// Parses `ENGINE=PATH`.
    ///
    /// # Errors
    ///
    /// If the engine's command line is not known.
    pub fn parse(text: &str) -> Result<Self> {
        let (engine, path) = text.split_once('=').ok_or("not ENGINE=PATH")?;
        let (command, separator): (&[&str], &[&str]) = match engine {
            // It passes on a separator too.
            "wasmtime" => (&["run"], &[]),
            "wasmer" => (&["run"], &["--"]),
            "wasmedge" | "wasmi" => (&[], &[]),
            _ => return Err(format!("the command line of {engine} is not known").into()),
        };
        Ok(Self {
            path: path.into(),
            command,
            separator,
        })
    }

    /// What it is to say how long a program has worked.
    fn run(&self, program: &Path, args: &[String]) -> Result<String> {
        let output = Command::new(&self.path)
            .args(self.command)
            .arg(program)
            .args(self.separator)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.path.display()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{} ended with {}: {text}",
                self.path.display(),
                output.status
            )
            .into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// One program with its arguments, and what the line that it prints begins with.
#[derive(Clone, Debug)]
pub struct Work {
    /// The name.
    pub name: &'static str,
    /// What it does.
    pub does: &'static str,
    program: Program,
}

/// Every work; those of CPython only if there is one.
///
/// # Errors
///
/// If CPython cannot be read.
pub fn works(python: Option<&Path>) -> Result<Vec<Work>> {
    let mut works: Vec<Work> = WORKS
        .into_iter()
        .map(|(name, does)| Work {
            name,
            does,
            program: Program::from(COMPUTE).with_args([name]),
        })
        .collect();
    if let Some(path) = python {
        let program = Program::read(path)?;
        works.extend(SCRIPTS.map(|(name, script, does)| Work {
            name,
            does,
            program: program.clone().with_args(["-c", script]),
        }));
    }
    Ok(works)
}

/// The milliseconds and the checksum of a line such as `json 1000000 5ca1ab1e`.
fn parse(name: &str, output: &str) -> Result<(f64, String)> {
    let mut words = output.split_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (found, time, sum) = (word(), word(), word());
    let nanoseconds: Option<f64> = time.parse().ok().filter(|_| found == name);
    let nanoseconds = nanoseconds.filter(|_| !sum.is_empty());
    let nanoseconds = nanoseconds.ok_or_else(|| format!("{name} has printed {output:?}"))?;
    Ok((nanoseconds / 1e6, sum.to_owned()))
}

/// A shim that has been started to compute.
#[derive(Debug)]
pub struct Computer {
    containerd: shimwright_testkit::Containerd,
    shim: Shim,
    tasks: usize,
}

impl Computer {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start(shim: &Path) -> Result<Self> {
        let containerd = driver::containerd(shim, None)?;
        let bundle = Program::from(COMPUTE).bundle(&containerd, "first", POD)?;
        let (shim, _) = driver::start(&containerd, &bundle)?;
        Ok(Self {
            containerd,
            shim,
            tasks: 0,
        })
    }

    /// Does a work once, and returns its milliseconds and its checksum.
    ///
    /// # Errors
    ///
    /// If it fails, with what it has written to its standard error.
    pub fn run(&mut self, work: &Work) -> Result<(f64, String)> {
        interrupt::check()?;
        self.tasks += 1;
        let id = format!("t{}", self.tasks);
        let mut bundle = work.program.bundle(&self.containerd, &id, POD)?;
        let (stdout, stderr) = (bundle.stdout()?, bundle.stderr()?);
        driver::create(&self.shim, &bundle)?;
        self.shim.start(&id)?;
        let status = driver::wait(&self.shim, &id, WORKING)?;
        self.shim.delete(&id)?;
        std::fs::remove_dir_all(bundle.image())?;
        if status != 0 {
            return Err(driver::failed(status, &stderr));
        }
        parse(work.name, &stdout.text()?)
    }
}

impl Drop for Computer {
    fn drop(&mut self) {
        self.shim.shutdown();
    }
}

/// Does every work, on the shim and the command line in turns.
///
/// # Errors
///
/// If one fails, or computes something else in one of the runs.
pub fn run(options: &Options) -> Result<Value> {
    let mut computer = Computer::start(&options.shim)?;
    let mut report = json!({});
    for work in works(options.python.as_deref())? {
        report[work.name] = measured(&mut computer, &work, options)?;
    }
    Ok(report)
}

fn measured(computer: &mut Computer, work: &Work, options: &Options) -> Result<Value> {
    let file = computer.containerd.directory().join("program.wasm");
    std::fs::write(&file, work.program.content())?;
    let [mut ours, mut theirs] = [(); 2].map(|()| Samples::new(MILLISECONDS));
    let mut checksum: Option<String> = None;
    let mut same = |sum: String| match &checksum {
        Some(first) if *first != sum => Err(format!("{} computed {sum}, not {first}", work.name)),
        _ => {
            checksum = Some(sum);
            Ok(())
        }
    };
    for _ in 0..options.number {
        let (time, sum) = computer.run(work)?;
        ours.push(time);
        same(sum)?;
        if let Some(cli) = &options.cli {
            let output = cli.run(&file, work.program.args())?;
            let (time, sum) = parse(work.name, &output)?;
            theirs.push(time);
            same(sum)?;
        }
    }
    let mut report = json!({ "shim": ours.summary()?, "checksum": checksum });
    if options.cli.is_some() {
        report["cli"] = theirs.summary()?;
        report["ratio_of_medians"] = json!(ours.median() / theirs.median());
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn what_a_program_prints_is_its_time_and_its_checksum() {
        let (time, sum) = parse("json", "json 1500000 0a\n").unwrap();
        assert_eq!((time, sum.as_str()), (1.5, "0a"));
        for other in ["", "json", "json x 0a", "json 1500000", "float 1500000 0a"] {
            assert!(parse("json", other).is_err(), "{other}");
        }
    }

    #[test]
    fn an_unknown_command_line_is_refused() {
        assert!(Cli::parse("/bin/wasmtime").is_err());
        assert!(Cli::parse("node=/bin/node").is_err());
    }

    #[test]
    fn a_program_is_given_its_arguments_only() {
        let words = |engine: &str| {
            let cli = Cli::parse(&format!("{engine}=/bin/echo")).unwrap();
            cli.run(Path::new("x.wasm"), &["-c".to_owned()]).unwrap()
        };
        assert_eq!(words("wasmtime"), "run x.wasm -c\n");
        assert_eq!(words("wasmer"), "run x.wasm -- -c\n");
        assert_eq!(words("wasmedge"), "x.wasm -c\n");
    }

    #[test]
    fn a_command_line_that_fails_says_why() {
        let cli = Cli::parse("wasmi=/bin/ls").unwrap();
        let error = cli.run(Path::new("/absent"), &[]).unwrap_err().to_string();
        assert!(error.contains("/absent"), "{error}");
    }

    #[test]
    fn every_script_prints_its_own_name() {
        for (name, script, _) in SCRIPTS {
            assert!(script.contains(&format!("print('{name}',")), "{name}");
        }
    }
}
