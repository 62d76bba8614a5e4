//! The options of a node, and what compiled code depends on: all that is asked of the engine without
//! its library.

use std::fs::File;
use std::io::{BufRead, BufReader};

use serde::Deserialize;

/// The version of the library, which the bindings need exactly.
pub(crate) const VERSION: &str = "0.17.1";

/// How modules are compiled; to be changed with the settings in `module.rs`.
const COMPILER: &str = "universal 2";

/// The lines of `/proc/cpuinfo` that tell which instructions a processor has.
const PROCESSOR: [&str; 8] = [
    "vendor_id",
    "cpu family",
    "model",
    "flags",
    "CPU implementer",
    "CPU variant",
    "CPU part",
    "Features",
];

/// The `[engine]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// What guests may import besides WASI.
    pub(crate) plugins: Vec<Plugin>,
    /// How modules are compiled.
    pub(crate) optimization: Optimization,
}

/// How much time the compiler takes to make code fast: a level of LLVM's. At `O1` it crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Optimization {
    O0,
    O2,
    #[default]
    O3,
}

/// A plug-in that a node can offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plugin {
    /// Machine learning: `wasi_ephemeral_nn`.
    WasiNn,
}

#[cfg(linked)]
impl Plugin {
    /// How WasmEdge calls the plug-in, and its one module.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WasiNn => "wasi_nn",
        }
    }

    /// Its file, below the directory of the shared libraries.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::WasiNn => "plugin/libwasmedgePluginWasiNN.so",
        }
    }
}

/// Names everything that compiled code depends on. Code is compiled for the processor of the node.
pub(crate) fn fingerprint(settings: &Settings) -> String {
    let mut text = format!(
        "wasmedge {VERSION}; {COMPILER}, {:?}; {} {}",
        settings.optimization,
        std::env::consts::ARCH,
        std::env::consts::OS
    );
    // Not there in the runner, which needs no fingerprint.
    if let Ok(file) = File::open("/proc/cpuinfo") {
        for line in processor(BufReader::new(file)) {
            text.push_str("; ");
            text.push_str(&line);
        }
    }
    text
}

/// The telling lines about the first processor.
fn processor(description: impl BufRead) -> Vec<String> {
    let lines = description.lines().map_while(Result::ok);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = PROCESSOR.iter().find(|known| **known == name.trim())?;
            Some(format!("{name} {}", value.trim()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_names_version_target_and_processor() {
        let mut settings = Settings::default();
        let fingerprint = super::fingerprint(&settings);
        for part in [VERSION, std::env::consts::ARCH, COMPILER, "O3"] {
            assert!(fingerprint.contains(part), "{part} is not in {fingerprint}");
        }
        settings.optimization = Optimization::O0;
        assert_ne!(super::fingerprint(&settings), fingerprint);
        let description = b"processor\t: 0\nmodel\t\t: 85\nmodel name\t: X\ncpu MHz\t: 2000.1\n\
            flags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t: none\n";
        assert_eq!(processor(&description[..]), ["model 85", "flags fpu avx2"]);
    }

    #[test]
    fn unknown_options_are_refused() {
        let parse = |text: &str| {
            let table = serde_json::from_str(text).unwrap();
            shimwright_core::Options::new(table).parse::<Settings>()
        };
        assert_eq!(parse("{}").unwrap(), Settings::default());
        let settings = parse(r#"{"plugins": ["wasi_nn"]}"#).unwrap();
        assert_eq!(settings.plugins, [Plugin::WasiNn]);
        let settings = parse(r#"{"optimization": "O0"}"#).unwrap();
        assert_eq!(settings.optimization, Optimization::O0);
        for wrong in [
            r#"{"plugin": []}"#,
            r#"{"plugins": ["wasmedge_process"]}"#,
            r#"{"optimization": "O1"}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
