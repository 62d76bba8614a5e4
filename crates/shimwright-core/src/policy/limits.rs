//! What a WebAssembly guest may use at most: set for the node, and narrowed by whoever runs it.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::path::Path;

use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use serde::Deserialize;

use crate::error::Error;
use crate::linear_memory::PAGE;

/// Annotations of a container with this prefix are settings.
const ANNOTATION: &str = "dev.shimwright.";

/// Variables of a container with this prefix are settings. Annotations are a pod's, variables a
/// container's.
const VARIABLE: &str = "SHIMWRIGHT_";

/// The variables among those that say how an engine serves a guest. They are its own to read, and
/// limit nothing.
const SERVING: &str = "SHIMWRIGHT_HTTP_";

/// The fewest files a runner can be set up and an engine can run with.
const FEWEST_FILES: u64 = 64;

/// Limits of a guest; what is not set is not limited here.
///
/// All but `linear_memory` are kept by the kernel or by core, so they hold for every engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// How long the guest may run, in whole seconds since its start.
    #[serde(deserialize_with = "seconds")]
    pub(crate) time_limit: Option<u32>,
    /// The number of descriptors of its process, its engine's included.
    #[serde(deserialize_with = "files")]
    open_files: Option<u64>,
    /// How many bytes all its linear memories may hold together. An engine that cannot keep to it
    /// refuses the container.
    #[serde(deserialize_with = "linear_memory")]
    pub(crate) linear_memory: Option<u64>,
    /// What it sees of the image.
    rootfs: Option<Rootfs>,
    /// What it can reach.
    network: Option<Network>,
}

/// What a guest sees of its image, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Rootfs {
    /// Nothing but the mounts of the spec.
    None,
    /// The root file system, which cannot be written.
    ReadOnly,
    /// As the spec says.
    ReadWrite,
}

/// The network of a guest, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Network {
    /// A namespace of its own, with nothing in it.
    None,
    /// As the spec says.
    Container,
}

impl Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        })
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Container => "container",
        })
    }
}

impl Limits {
    /// These limits, made narrower by `wanted`.
    ///
    /// # Errors
    ///
    /// The first setting of `wanted`, which comes from `source`, that is wider than it is here.
    pub(crate) fn narrow(&self, wanted: &Self, source: &str) -> Result<Self, Error> {
        Ok(Self {
            time_limit: narrower("time_limit", self.time_limit, wanted.time_limit, source)?,
            open_files: narrower("open_files", self.open_files, wanted.open_files, source)?,
            linear_memory: narrower(
                "linear_memory",
                self.linear_memory,
                wanted.linear_memory,
                source,
            )?,
            rootfs: narrower("rootfs", self.rootfs, wanted.rootfs, source)?,
            network: narrower("network", self.network, wanted.network, source)?,
        })
    }

    /// These limits, made narrower by what the container itself asks for.
    ///
    /// # Errors
    ///
    /// A setting that is unknown, malformed or wider, by its name.
    pub(crate) fn narrow_for(&self, spec: &Spec) -> Result<Self, Error> {
        let env = spec.process().iter().flat_map(super::env);
        let limiting = env.filter(|(name, _)| !name.starts_with(SERVING));
        let variables = limiting.filter_map(|(name, value)| {
            let key = name.strip_prefix(VARIABLE)?.to_ascii_lowercase();
            Some((key, name, value))
        });
        let none = HashMap::new();
        let mut annotations: Vec<_> = spec
            .annotations()
            .as_ref()
            .unwrap_or(&none)
            .iter()
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(ANNOTATION)?;
                Some((key.to_owned(), name.clone(), value.clone()))
            })
            .collect();
        annotations.sort();
        let mut limits = *self;
        for (key, name, value) in annotations.into_iter().chain(variables) {
            let mut wanted = Self::default();
            wanted.set(&key, &value, &name)?;
            limits = limits.narrow(&wanted, &name)?;
        }
        Ok(limits)
    }

    fn set(&mut self, key: &str, value: &str, name: &str) -> Result<(), Error> {
        let invalid = |what: &str| Error::invalid(format!("{name}: {value:?} is not {what}"));
        match key {
            "time_limit" => {
                let seconds = value.parse().ok().filter(|&seconds| seconds > 0);
                self.time_limit = Some(seconds.ok_or_else(|| invalid(SECONDS))?);
            }
            "open_files" => {
                let files = value.parse().ok().filter(|&files| files >= FEWEST_FILES);
                self.open_files = Some(files.ok_or_else(|| invalid(FILES))?);
            }
            "linear_memory" => {
                let bytes = value.parse().ok().filter(|&bytes| bytes >= PAGE);
                self.linear_memory = Some(bytes.ok_or_else(|| invalid(LINEAR_MEMORY))?);
            }
            "rootfs" => {
                let known = [Rootfs::None, Rootfs::ReadOnly, Rootfs::ReadWrite];
                let found = known.into_iter().find(|known| known.to_string() == value);
                self.rootfs = Some(found.ok_or_else(|| invalid("none, read-only or read-write"))?);
            }
            "network" => {
                let known = [Network::None, Network::Container];
                let found = known.into_iter().find(|known| known.to_string() == value);
                self.network = Some(found.ok_or_else(|| invalid("none or container"))?);
            }
            unknown => {
                return Err(Error::invalid(format!(
                    "{name}: there is no limit {unknown}"
                )));
            }
        }
        Ok(())
    }

    /// Whether the guest sees the mounts of the spec only.
    pub(crate) fn hides_image(&self) -> bool {
        self.rootfs == Some(Rootfs::None)
    }

    /// Has the sandbox of a spec keep these limits; all but time and linear memory, which are the
    /// runner's.
    ///
    /// `empty` is a directory to take the image's place if it is hidden.
    pub(crate) fn apply(&self, spec: &mut Spec, empty: &Path) {
        if let (Some(Rootfs::None | Rootfs::ReadOnly), Some(mut root)) =
            (self.rootfs, spec.root().clone())
        {
            root.set_readonly(Some(true));
            if self.hides_image() {
                root.set_path(empty.to_owned());
            }
            spec.set_root(Some(root));
        }
        if self.network == Some(Network::None) {
            isolate_network(spec);
        }
        if let Some(mut process) = spec.process().clone() {
            self.apply_to(&mut process);
            spec.set_process(Some(process));
        }
    }

    /// Has one process keep the limits that are not about its container.
    pub(crate) fn apply_to(&self, process: &mut Process) {
        if let Some(files) = self.open_files {
            limit_files(process, files);
        }
    }
}

const SECONDS: &str = "a number of seconds above zero";
const FILES: &str = "a number of files, 64 or more";
const LINEAR_MEMORY: &str = "a number of bytes, 65536 or more";

fn narrower<T: Ord + Display>(
    key: &str,
    most: Option<T>,
    wanted: Option<T>,
    source: &str,
) -> Result<Option<T>, Error> {
    match (most, wanted) {
        (Some(most), Some(wanted)) if wanted > most => Err(Error::invalid(format!(
            "{key} may be narrowed only: it is {wanted} in {source}, and {most} on this node"
        ))),
        (most, wanted) => Ok(wanted.or(most)),
    }
}

fn isolate_network(spec: &mut Spec) {
    let Some(mut linux) = spec.linux().clone() else {
        return;
    };
    let mut own = LinuxNamespace::default();
    own.set_typ(LinuxNamespaceType::Network);
    let others = linux.namespaces().iter().flatten();
    let mut namespaces: Vec<_> = others
        .filter(|namespace| namespace.typ() != LinuxNamespaceType::Network)
        .cloned()
        .collect();
    namespaces.push(own);
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
}

/// What the spec itself asks for is mostly a default of its client's, so it is cut, not refused.
fn limit_files(process: &mut Process, most: u64) {
    let mut limits = process.rlimits().clone().unwrap_or_default();
    let own = limits
        .iter()
        .find(|limit| limit.typ() == PosixRlimitType::RlimitNofile);
    let (soft, hard) = own.map_or((most, most), |own| (own.soft(), own.hard()));
    let limit = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(soft.min(most))
        .hard(hard.min(most))
        .build()
        .expect("every field has a default");
    limits.retain(|limit| limit.typ() != PosixRlimitType::RlimitNofile);
    limits.push(limit);
    process.set_rlimits(Some(limits));
}

fn seconds<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(input)? {
        0 => Err(serde::de::Error::custom(format!(
            "time_limit: 0 is not {SECONDS}"
        ))),
        seconds => Ok(Some(seconds)),
    }
}

fn files<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(input)? {
        few if few < FEWEST_FILES => Err(serde::de::Error::custom(format!(
            "open_files: {few} is not {FILES}"
        ))),
        files => Ok(Some(files)),
    }
}

fn linear_memory<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(input)? {
        few if few < PAGE => Err(serde::de::Error::custom(format!(
            "linear_memory: {few} is not {LINEAR_MEMORY}"
        ))),
        bytes => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(toml: &str) -> Limits {
        toml::from_str(toml).unwrap()
    }

    fn spec(annotations: &str, env: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"/image"}},"annotations":{{{annotations}}},
            "process":{{"cwd":"/","args":["a"],"env":[{env}],"user":{{"uid":0,"gid":0}},
            "rlimits":[{{"type":"RLIMIT_NOFILE","soft":100,"hard":1000}}]}},
            "linux":{{"namespaces":[{{"type":"network","path":"/run/netns/a"}},{{"type":"pid"}}]}}}}"#
        ))
        .unwrap()
    }

    const NODE: &str = "time_limit = 60\nopen_files = 512\nrootfs = 'read-only'\n";

    #[test]
    fn a_workload_narrows_by_annotations_and_variables() {
        let spec = spec(
            r#""dev.shimwright.time_limit":"30","other":"x""#,
            r#""SHIMWRIGHT_ROOTFS=none","SHIMWRIGHT_TIME_LIMIT=20","A=b","SHIMWRIGHT_HTTP_GRACE=5""#,
        );
        let narrowed = limits(NODE).narrow_for(&spec).unwrap();
        let expected = limits("time_limit = 20\nopen_files = 512\nrootfs = 'none'\n");
        assert_eq!(narrowed, expected);
        assert_eq!(limits("").narrow_for(&spec).unwrap().time_limit, Some(20));
    }

    #[test]
    fn what_is_wider_is_refused_with_both_values() {
        let refusal = |annotation: &str, env: &str| {
            let spec = spec(annotation, env);
            limits(NODE).narrow_for(&spec).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(r#""dev.shimwright.time_limit":"61""#, ""),
            "time_limit may be narrowed only: it is 61 in dev.shimwright.time_limit, and 60 on \
             this node"
        );
        assert_eq!(
            refusal("", r#""SHIMWRIGHT_ROOTFS=read-write""#),
            "rootfs may be narrowed only: it is read-write in SHIMWRIGHT_ROOTFS, and read-only on \
             this node"
        );
        assert!(
            limits("linear_memory = 65536")
                .narrow(&limits("linear_memory = 65537"), "x")
                .is_err()
        );
        // A variable cannot take back what an annotation has narrowed.
        let both = refusal(
            r#""dev.shimwright.open_files":"64""#,
            r#""SHIMWRIGHT_OPEN_FILES=65""#,
        );
        assert!(
            both.contains("it is 65 in SHIMWRIGHT_OPEN_FILES, and 64"),
            "{both}"
        );
    }

    #[test]
    fn what_is_unknown_or_malformed_is_refused_and_named() {
        for (env, reason) in [
            (
                "SHIMWRIGHT_TIMELIMIT=1",
                "SHIMWRIGHT_TIMELIMIT: there is no limit timelimit",
            ),
            (
                "SHIMWRIGHT_TIME_LIMIT=1s",
                "\"1s\" is not a number of seconds",
            ),
            (
                "SHIMWRIGHT_TIME_LIMIT=0",
                "\"0\" is not a number of seconds",
            ),
            ("SHIMWRIGHT_OPEN_FILES=3", "\"3\" is not a number of files"),
            (
                "SHIMWRIGHT_LINEAR_MEMORY=64M",
                "\"64M\" is not a number of bytes",
            ),
            (
                "SHIMWRIGHT_ROOTFS=ro",
                "\"ro\" is not none, read-only or read-write",
            ),
            (
                "SHIMWRIGHT_NETWORK=host",
                "\"host\" is not none or container",
            ),
        ] {
            let spec = spec("", &format!("{env:?}"));
            let error = limits("").narrow_for(&spec).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        for (text, reason) in [
            ("time = 1", "time"),
            ("time_limit = 0", "time_limit"),
            ("open_files = 1", "open_files"),
            ("linear_memory = 65535", "linear_memory"),
            ("rootfs = 'ro'", "ro"),
        ] {
            let error = toml::from_str::<Limits>(text).unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
    }

    #[test]
    fn the_sandbox_keeps_them() {
        let mut spec = spec("", "");
        let empty = Path::new("/empty");
        limits("").apply(&mut spec, empty);
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("/image"));
        limits("rootfs = 'none'\nnetwork = 'none'\nopen_files = 512").apply(&mut spec, empty);
        let root = spec.root().as_ref().unwrap();
        assert_eq!(
            (root.path().as_path(), root.readonly()),
            (empty, Some(true))
        );
        let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        let network = namespaces
            .iter()
            .find(|namespace| namespace.typ() == LinuxNamespaceType::Network);
        assert!(network.unwrap().path().is_none() && namespaces.len() == 2);
        let limits = spec.process().as_ref().unwrap().rlimits().clone().unwrap();
        let files: Vec<_> = limits.iter().map(|l| (l.soft(), l.hard())).collect();
        assert_eq!(files, [(100, 512)]);
    }
}
