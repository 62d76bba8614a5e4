//! A case: what it changes in a spec, and what is expected of it.

use serde_json::Value;

use crate::Stage;

/// The versions of cgroups on which something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Both.
    Any,
    /// Version 1 alone.
    V1,
    /// Version 2 alone.
    V2,
}

impl Cgroups {
    /// Whether this version is meant.
    pub fn includes(self, is_v1: bool) -> bool {
        match self {
            Self::Any => true,
            Self::V1 => is_v1,
            Self::V2 => !is_v1,
        }
    }
}

/// What becomes of a case with runc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The program runs.
    Runs,
    /// The create or the start fails; our error has this text.
    Refused(&'static str),
    /// Either, as the node's kernel has it or not.
    AsTheNode,
}

/// One spec for both runtimes.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Changes the spec and the files around it.
    pub change: fn(&mut Stage),
    /// Changes the process of an exec, which begins as the container's own process.
    pub exec: Option<fn(&mut Value)>,
    /// What happens on the node while the container runs, after which its mounts are compared again.
    pub meanwhile: Option<fn(&Stage)>,
    /// What runc does.
    pub expected: Expected,
    /// Where it is tried.
    pub cgroups: Cgroups,
    /// Fields that it shows although it does not set them: their absence is what matters.
    pub absent: &'static [&'static str],
}

impl Case {
    /// A case that runs.
    pub fn new(name: &'static str, change: fn(&mut Stage)) -> Self {
        Self {
            name,
            change,
            exec: None,
            meanwhile: None,
            expected: Expected::Runs,
            cgroups: Cgroups::Any,
            absent: &[],
        }
    }

    /// The same with an exec.
    pub fn exec(mut self, change: fn(&mut Value)) -> Self {
        self.exec = Some(change);
        self
    }

    /// The same with something that happens on the node meanwhile.
    pub fn meanwhile(mut self, act: fn(&Stage)) -> Self {
        self.meanwhile = Some(act);
        self
    }

    /// The same where runc refuses it; our error has this text.
    pub fn refused(mut self, text: &'static str) -> Self {
        self.expected = Expected::Refused(text);
        self
    }

    /// The same where it depends on the node whether runc does it.
    pub fn as_the_node(mut self) -> Self {
        self.expected = Expected::AsTheNode;
        self
    }

    /// The same on this version of cgroups alone.
    pub fn on(mut self, cgroups: Cgroups) -> Self {
        self.cgroups = cgroups;
        self
    }

    /// The same, which shows what becomes of a container without these fields.
    pub fn absent(mut self, fields: &'static [&'static str]) -> Self {
        self.absent = fields;
        self
    }
}
