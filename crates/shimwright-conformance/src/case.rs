//! What a case is: a guest, what it is given, and what must come of it.

use std::io;
use std::path::Path;

use shimwright_core::{BoxError, DEFAULT_FUNCTION, Engine, Limit, Status};
use shimwright_guests::Guest;

use crate::serving::Served;

/// The signals of cases.
pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGTERM: i32 = 15;

/// One behaviour.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What must be true, for the table in the documentation.
    pub(crate) asserts: &'static str,
    pub(crate) check: Check,
}

/// How a case is decided.
#[derive(Debug)]
pub(crate) enum Check {
    /// By running a guest in a runner of its own.
    Run(Run),
    /// By talking to a guest that serves, likewise.
    Serve(Served),
    /// By asking the engine, in the suite's own process.
    Ask(fn(&dyn Engine) -> Result<Answer, BoxError>),
}

impl Check {
    /// The run of a guest that it takes.
    pub(crate) fn run(&self) -> Option<&Run> {
        match self {
            Self::Run(run) | Self::Serve(Served { run, .. }) => Some(run),
            Self::Ask(_) => None,
        }
    }
}

/// What came of asking an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It behaves as it must.
    Right,
    /// It has no precompiler, which the case is about.
    NoPrecompiler,
}

/// One run of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) wasm: &'static [u8],
    pub(crate) form: Form,
    pub(crate) function: &'static str,
    pub(crate) args: &'static [&'static str],
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) stdin: &'static str,
    pub(crate) directory: Option<Directory>,
    /// A limit that the engine has to enforce, and how much it allows, if that is a number.
    pub(crate) limit: Option<(Limit, u64)>,
    /// How many seconds the guest may run.
    pub(crate) time_limit: Option<u32>,
    pub(crate) end: End,
    pub(crate) stdout: Text,
    pub(crate) stderr: Text,
    /// What of WebAssembly the guest needs, in words that an engine without it has to say.
    pub(crate) needs: Option<&'static str>,
}

/// What the engine is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The WebAssembly binary.
    Wasm,
    /// What a cache gives of the output of its own precompiler.
    Precompiled,
}

/// The preopen `/data` of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    /// Fills the directory `data` in the given one, and perhaps what is beside it.
    pub(crate) set_up: fn(&Path) -> io::Result<()>,
    /// Says what is wrong with the given directory afterwards.
    pub(crate) check: fn(&Path) -> Result<(), BoxError>,
}

impl Directory {
    /// The same, whatever is there afterwards.
    pub(crate) const fn unchecked(mut self) -> Self {
        self.check = |_| Ok(());
        self
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this exit status of the guest's own.
    Code(u8),
    /// By a trap.
    Trapped,
    /// Without having run, as the engine cannot run it.
    EngineFailed,
    /// Not before it is killed, which is done once it has written what is expected.
    Killed,
    /// By this signal, which is sent once it has written what is expected.
    Signalled(i32),
    /// At its time limit.
    TimedOut,
}

impl End {
    /// The exit status of a run that ends by itself.
    pub(crate) fn status(self) -> Option<u8> {
        match self {
            Self::Code(code) => Some(code),
            Self::Trapped => Some(Status::TRAPPED.code()),
            Self::EngineFailed => Some(Status::ENGINE_FAILED.code()),
            Self::Signalled(signal) => Some(Status::from_signal(signal).code()),
            Self::TimedOut => Some(Status::TIMED_OUT.code()),
            Self::Killed => None,
        }
    }
}

/// What is expected of an output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// Exactly this.
    Is(&'static str),
    /// A single line with this in it.
    Line(&'static str),
}

impl Text {
    pub(crate) fn matches(self, found: &str) -> bool {
        match self {
            Self::Is(text) => found == text,
            Self::Line(part) => found.lines().count() == 1 && contains(found, part),
        }
    }
}

/// Whether a line has this in it, in capital letters or small ones.
fn contains(line: &str, part: &str) -> bool {
    line.to_lowercase().contains(&part.to_lowercase())
}

impl Run {
    /// A run that ends with status 0 and has written nothing.
    pub(crate) const fn guest(guest: Guest) -> Self {
        Self::wasm(guest.wasm())
    }

    /// As [`guest`](Self::guest), for bytes that are no guest.
    pub(crate) const fn wasm(wasm: &'static [u8]) -> Self {
        Self {
            wasm,
            form: Form::Wasm,
            function: DEFAULT_FUNCTION,
            args: &["guest"],
            env: &[],
            stdin: "",
            directory: None,
            limit: None,
            time_limit: None,
            end: End::Code(0),
            stdout: Text::Is(""),
            stderr: Text::Is(""),
            needs: None,
        }
    }

    /// Needs a proposal of WebAssembly, which not every engine has: one for which the case is a gap
    /// has to say why it does not run the guest, with this in the reason.
    pub(crate) const fn needs(mut self, proposal: &'static str) -> Self {
        self.needs = Some(proposal);
        self
    }

    /// The run of an engine that lacks what the guest needs.
    pub(crate) const fn lacking(self, proposal: &'static str) -> Self {
        self.fails(proposal)
    }

    pub(crate) const fn precompiled(mut self) -> Self {
        self.form = Form::Precompiled;
        self
    }

    pub(crate) const fn function(mut self, function: &'static str) -> Self {
        self.function = function;
        self
    }

    pub(crate) const fn args(mut self, args: &'static [&'static str]) -> Self {
        self.args = args;
        self
    }

    pub(crate) const fn env(mut self, env: &'static [(&'static str, &'static str)]) -> Self {
        self.env = env;
        self
    }

    pub(crate) const fn stdin(mut self, stdin: &'static str) -> Self {
        self.stdin = stdin;
        self
    }

    pub(crate) const fn directory(mut self, directory: Directory) -> Self {
        self.directory = Some(directory);
        self
    }

    pub(crate) const fn limit(mut self, limit: Limit, most: u64) -> Self {
        self.limit = Some((limit, most));
        self
    }

    pub(crate) const fn stdout(mut self, stdout: &'static str) -> Self {
        self.stdout = Text::Is(stdout);
        self
    }

    pub(crate) const fn stderr(mut self, stderr: &'static str) -> Self {
        self.stderr = Text::Is(stderr);
        self
    }

    pub(crate) const fn exits(mut self, code: u8) -> Self {
        self.end = End::Code(code);
        self
    }

    /// Traps, and the reason is one line.
    pub(crate) const fn traps(self) -> Self {
        self.traps_with("")
    }

    /// The same with this in the line.
    pub(crate) const fn traps_with(mut self, reason: &'static str) -> Self {
        self.end = End::Trapped;
        self.stderr = Text::Line(reason);
        self
    }

    /// Cannot be run, and the reason is one line with this in it.
    pub(crate) const fn fails(mut self, reason: &'static str) -> Self {
        self.end = End::EngineFailed;
        self.stderr = Text::Line(reason);
        self
    }

    /// Whether it must not be run, and this reason is one for that.
    pub(crate) fn rejects(&self, reason: &str) -> bool {
        match (self.end, self.stderr) {
            (End::EngineFailed, Text::Line(part)) => contains(reason, part),
            _ => false,
        }
    }

    /// Ends by this signal.
    pub(crate) const fn ended_by(mut self, signal: i32) -> Self {
        self.end = End::Signalled(signal);
        self
    }

    /// Ends after so many seconds, and the reason is told.
    pub(crate) const fn time_limit(mut self, seconds: u32) -> Self {
        self.time_limit = Some(seconds);
        self.end = End::TimedOut;
        self.stderr = Text::Is("the guest has reached its time limit\n");
        self
    }

    /// Ends by itself although it may run for so many seconds.
    pub(crate) const fn within_seconds(mut self, seconds: u32) -> Self {
        self.time_limit = Some(seconds);
        self
    }

    pub(crate) const fn runs_until_killed(mut self) -> Self {
        self.end = End::Killed;
        self
    }
}
