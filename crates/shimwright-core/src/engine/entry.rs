//! Which functions of a guest are called, and what a user reads if one cannot be: one rule for all
//! engines.

use crate::engine::Refusal;
use crate::engine::artifact::Kind;
use crate::engine::workload::{DEFAULT_FUNCTION, Workload};

/// The function that prepares a reactor of WASI preview 1.
const INITIALIZE: &str = "_initialize";

impl Workload {
    /// The functions to call, one after the other, checked before any code of the guest runs.
    /// `parameters` says how many parameters the function has that the artifact exports by a name.
    ///
    /// The last is the workload's function. Before it comes `_initialize`, if a module exports that:
    /// by the application ABI of WASI preview 1 a module is a command, whose `_start` does all of its
    /// work, or a reactor, whose `_initialize` is called before anything else. A module that is run
    /// by `_start` is a command, also if it exports both: `_initialize` is not called.
    ///
    /// # Errors
    ///
    /// There is no such function, or it needs parameters, for which there are no values. The reason
    /// names the function.
    pub fn calls(&self, parameters: impl Fn(&str) -> Option<usize>) -> Result<Vec<&str>, Refusal> {
        let check = |name: &str| match parameters(name) {
            Some(0) => Ok(()),
            Some(number) => Err(Refusal::new(format!(
                "the function `{name}` needs {number} parameters, but gets none"
            ))),
            None => Err(Refusal::new(format!(
                "the {} exports no function `{name}`",
                match self.artifact().kind() {
                    Kind::Module => "module",
                    Kind::Component => "component",
                }
            ))),
        };
        let function = self.function();
        let mut calls = Vec::new();
        let is_reactor = self.artifact().kind() == Kind::Module
            && ![DEFAULT_FUNCTION, INITIALIZE].contains(&function)
            && parameters(INITIALIZE).is_some();
        if is_reactor {
            calls.push(INITIALIZE);
        }
        calls.push(function);
        calls.iter().try_for_each(|name| check(name))?;
        Ok(calls)
    }
}

impl Refusal {
    /// The refusal of a guest whose import `name` of the module `from` no host function matches.
    pub fn unknown_import(from: &str, name: &str) -> Self {
        Self::new(format!(
            "the guest imports `{name}` of `{from}`, which this engine does not have"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::artifact::{Artifact, Wasm};

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    /// What is called of an artifact that exports `greet`, `_start` and `_initialize`, and `add` with
    /// two parameters.
    fn calls(preamble: &[u8], function: &str) -> Result<Vec<String>, String> {
        let wasm = Wasm::new(preamble.to_vec()).unwrap();
        let workload = Workload::new(Artifact::Wasm(wasm)).with_function(function);
        let calls = workload.calls(|name| match name {
            "greet" | "_start" | "_initialize" => Some(0),
            "add" => Some(2),
            _ => None,
        });
        let calls = calls.map_err(|refusal| refusal.to_string())?;
        Ok(calls.into_iter().map(str::to_owned).collect())
    }

    #[test]
    fn what_cannot_be_called_is_named() {
        for (preamble, function, reason) in [
            (MODULE, "sing", "the module exports no function `sing`"),
            (
                COMPONENT,
                "sing",
                "the component exports no function `sing`",
            ),
            (
                MODULE,
                "add",
                "the function `add` needs 2 parameters, but gets none",
            ),
        ] {
            assert_eq!(calls(preamble, function), Err(reason.to_owned()));
        }
    }

    #[test]
    fn a_reactor_is_initialized_and_a_command_is_not() {
        let check = |preamble, function, expected: &[&str]| {
            assert_eq!(calls(preamble, function).unwrap(), expected);
        };
        check(MODULE, "greet", &["_initialize", "greet"]);
        check(MODULE, "_start", &["_start"]);
        // Not twice.
        check(MODULE, "_initialize", &["_initialize"]);
        check(COMPONENT, "greet", &["greet"]);
    }
}
