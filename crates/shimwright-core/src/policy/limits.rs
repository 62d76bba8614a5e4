//! What a WebAssembly guest may use at most: set for the node, and narrowed by whoever runs it.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::path::Path;

use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use serde::Deserialize;

use super::environment::Environment;
use crate::engine::Limit;
use crate::engine::limits::linear_memory::PAGE;
use crate::engine::outbound::Outbound;
use crate::error::Error;

/// Annotations of a container with this prefix are settings.
const ANNOTATION: &str = "dev.shimwright.";

/// Variables of a container with this prefix are settings. Annotations are a pod's, variables a
/// container's.
const VARIABLE: &str = "SHIMWRIGHT_";

/// The variables among those that say how an engine serves a guest, and those of other shims that
/// say the same. They are its own to read, and limit nothing.
const SERVING: [&str; 2] = ["SHIMWRIGHT_HTTP_", "WASMTIME_HTTP_"];

/// The fewest files a runner can be set up and an engine can run with.
const FEWEST_FILES: u64 = 64;

/// The smallest stack that a function of a guest and those of its host can be called with.
const SMALLEST_STACK: u64 = 65536;

/// Limits of a guest; what is not set is not limited here.
///
/// What neither the kernel nor core can keep is the engine's, see [`Limits::kept_by_the_engine`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// How long the guest may run, in whole seconds since its start.
    #[serde(deserialize_with = "seconds")]
    pub(crate) time_limit: Option<u32>,
    /// The number of descriptors of its process, its engine's included.
    #[serde(deserialize_with = "files")]
    open_files: Option<u64>,
    /// How many bytes all its linear memories may hold together.
    #[serde(deserialize_with = "linear_memory")]
    pub(crate) linear_memory: Option<u64>,
    /// How many elements all its tables may hold together.
    pub(crate) table_elements: Option<u64>,
    /// How many core instances it may consist of.
    #[serde(deserialize_with = "instances")]
    pub(crate) instances: Option<u64>,
    /// How many bytes of stack its functions may use.
    #[serde(deserialize_with = "stack")]
    pub(crate) stack: Option<u64>,
    /// What it sees of the image.
    rootfs: Option<Rootfs>,
    /// What it can reach.
    network: Option<Network>,
    /// Where in that network it may connect and send to.
    pub(crate) outbound: Option<Outbound>,
    /// Where names are looked up.
    name_lookup: Option<Network>,
    /// Which variables of its container it is given.
    environment: Option<Environment>,
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
        macro_rules! narrowed {
            ($($key:ident)*) => {
                Self {
                    $($key: narrower(stringify!($key), &self.$key, &wanted.$key, source)?),*
                }
            };
        }
        Ok(narrowed! {
            time_limit open_files linear_memory table_elements instances stack
            rootfs network outbound name_lookup environment
        })
    }

    /// These limits, made narrower by what the container itself asks for.
    ///
    /// # Errors
    ///
    /// A setting that is unknown, malformed or wider, by its name.
    pub(crate) fn narrow_for(&self, spec: &Spec) -> Result<Self, Error> {
        let env = spec.process().iter().flat_map(super::variables);
        let limiting = env.filter(|(name, _)| !is_serving(name));
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
        let mut limits = self.clone();
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
            "table_elements" => {
                let elements = value.parse().ok();
                self.table_elements = Some(elements.ok_or_else(|| invalid(TABLE_ELEMENTS))?);
            }
            "instances" => {
                let instances = value.parse().ok().filter(|&instances| instances > 0);
                self.instances = Some(instances.ok_or_else(|| invalid(INSTANCES))?);
            }
            "stack" => {
                let bytes = value.parse().ok().filter(|&bytes| bytes >= SMALLEST_STACK);
                self.stack = Some(bytes.ok_or_else(|| invalid(STACK))?);
            }
            "rootfs" => {
                let known = [Rootfs::None, Rootfs::ReadOnly, Rootfs::ReadWrite];
                let found = known.into_iter().find(|known| known.to_string() == value);
                self.rootfs = Some(found.ok_or_else(|| invalid("none, read-only or read-write"))?);
            }
            "network" | "name_lookup" => {
                let known = [Network::None, Network::Container];
                let found = known.into_iter().find(|known| known.to_string() == value);
                let found = found.ok_or_else(|| invalid("none or container"))?;
                if key == "network" {
                    self.network = Some(found);
                } else {
                    self.name_lookup = Some(found);
                }
            }
            "outbound" => {
                let destinations = list(value).ok_or_else(|| invalid(DESTINATIONS))?;
                let outbound = Outbound::new(destinations);
                let outbound =
                    outbound.map_err(|error| Error::invalid(format!("{name}: {error}")))?;
                self.outbound = Some(outbound);
            }
            "environment" => {
                let names = list(value).ok_or_else(|| invalid(NAMES))?;
                let environment = Environment::new(names);
                let environment =
                    environment.map_err(|error| Error::invalid(format!("{name}: {error}")))?;
                self.environment = Some(environment);
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

    /// Whether the guest may not write to its image.
    pub(crate) fn is_read_only(&self) -> bool {
        self.rootfs.is_some_and(|rootfs| rootfs < Rootfs::ReadWrite)
    }

    /// Whether the guest has a network namespace with nothing in it.
    pub(crate) fn isolates_network(&self) -> bool {
        self.network == Some(Network::None)
    }

    /// Whether the guest may look names up.
    pub(crate) fn name_lookup(&self) -> bool {
        self.name_lookup != Some(Network::None)
    }

    /// Whether the guest is given the variable of this name. What says how it is served always is:
    /// the engine reads it from there.
    pub(crate) fn shows(&self, name: &str) -> bool {
        let environment = self.environment.as_ref();
        is_serving(name) || environment.is_none_or(|environment| environment.allows(name))
    }

    /// Those that an engine has to keep, which it may be unable to.
    pub(crate) fn kept_by_the_engine(&self) -> impl Iterator<Item = Limit> {
        // Without a network there is nothing to be reached.
        let limits_outbound = self.outbound.is_some() && !self.isolates_network();
        let all = [
            (self.linear_memory.is_some(), Limit::LinearMemory),
            (self.table_elements.is_some(), Limit::TableElements),
            (self.instances.is_some(), Limit::Instances),
            (self.stack.is_some(), Limit::Stack),
            (limits_outbound, Limit::Outbound),
            (!self.name_lookup(), Limit::NameLookup),
        ];
        let set = all.into_iter().filter(|(is_set, _)| *is_set);
        set.map(|(_, limit)| limit)
    }

    /// Has the sandbox of a spec keep these limits, but those of time, which is the runner's, and of
    /// the engine.
    ///
    /// `empty` is a directory to take the image's place if it is hidden.
    pub(crate) fn apply(&self, spec: &mut Spec, empty: &Path) {
        if self.is_read_only()
            && let Some(mut root) = spec.root().clone()
        {
            root.set_readonly(Some(true));
            if self.hides_image() {
                root.set_path(empty.to_owned());
            }
            spec.set_root(Some(root));
        }
        if self.isolates_network() {
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

const TABLE_ELEMENTS: &str = "a number of elements";
const INSTANCES: &str = "a number of instances, 1 or more";
const STACK: &str = "a number of bytes, 65536 or more";
const DESTINATIONS: &str = "none or a list of networks and ports";
const NAMES: &str = "none or a list of names";

/// A setting that can be made narrower.
trait Setting: Clone {
    /// Whether it gives a guest no more than `most` does.
    fn is_within(&self, most: &Self) -> bool;

    /// How it is written.
    fn text(&self) -> String;
}

impl<T: Ord + Display + Clone> Setting for T {
    fn is_within(&self, most: &Self) -> bool {
        self <= most
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Setting for Outbound {
    fn is_within(&self, most: &Self) -> bool {
        Self::is_within(self, most)
    }

    fn text(&self) -> String {
        list_text(self.clone().into())
    }
}

impl Setting for Environment {
    fn is_within(&self, most: &Self) -> bool {
        Self::is_within(self, most)
    }

    fn text(&self) -> String {
        list_text(self.into())
    }
}

fn narrower<T: Setting>(
    key: &str,
    most: &Option<T>,
    wanted: &Option<T>,
    source: &str,
) -> Result<Option<T>, Error> {
    match (most, wanted) {
        (Some(most), Some(wanted)) if !wanted.is_within(most) => Err(Error::invalid(format!(
            "{key} may be narrowed only: it is {} in {source}, and {} on this node",
            wanted.text(),
            most.text()
        ))),
        (most, wanted) => Ok(wanted.as_ref().or(most.as_ref()).cloned()),
    }
}

/// The word for an empty list, which no text at all may be a mistake for.
const EMPTY: &str = "none";

/// A list in one text, separated by commas or spaces; none if there is nothing in it.
fn list(text: &str) -> Option<Vec<&str>> {
    if text == EMPTY {
        return Some(Vec::new());
    }
    let words = text.split(|c: char| c == ',' || c.is_whitespace());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then_some(words)
}

fn list_text(list: Vec<String>) -> String {
    if list.is_empty() {
        return EMPTY.to_owned();
    }
    list.join(" ")
}

fn is_serving(name: &str) -> bool {
    SERVING.iter().any(|prefix| name.starts_with(prefix))
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
    at_least(input, "open_files", FEWEST_FILES, FILES)
}

fn linear_memory<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    at_least(input, "linear_memory", PAGE, LINEAR_MEMORY)
}

fn instances<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    at_least(input, "instances", 1, INSTANCES)
}

fn stack<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    at_least(input, "stack", SMALLEST_STACK, STACK)
}

fn at_least<'de, D: serde::Deserializer<'de>>(
    input: D,
    key: &str,
    least: u64,
    expected: &str,
) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(input)? {
        less if less < least => Err(serde::de::Error::custom(format!(
            "{key}: {less} is not {expected}"
        ))),
        number => Ok(Some(number)),
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
            (
                "SHIMWRIGHT_NAME_LOOKUP=dns",
                "\"dns\" is not none or container",
            ),
            ("SHIMWRIGHT_INSTANCES=0", "\"0\" is not a number of inst"),
            ("SHIMWRIGHT_STACK=8192", "\"8192\" is not a number of bytes"),
            (
                "SHIMWRIGHT_TABLE_ELEMENTS=-1",
                "\"-1\" is not a number of elements",
            ),
            ("SHIMWRIGHT_OUTBOUND=", "\"\" is not none or a list"),
            (
                "SHIMWRIGHT_OUTBOUND=10.0.0.0/8, example.com",
                "SHIMWRIGHT_OUTBOUND: \"example.com\" is not a network",
            ),
            ("SHIMWRIGHT_ENVIRONMENT= ", "\" \" is not none or a list"),
            (
                "SHIMWRIGHT_ENVIRONMENT=*_KEY",
                "\"*_KEY\" is not the name of a variable",
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
            ("instances = 0", "instances"),
            ("stack = 4096", "stack"),
            ("outbound = ['example.com']", "example.com"),
            ("outbound = '10.0.0.0/8'", "sequence"),
            ("environment = ['A=B']", "A=B"),
        ] {
            let error = toml::from_str::<Limits>(text).unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
    }

    #[test]
    fn lists_are_narrowed_entry_by_entry() {
        let node =
            limits("outbound = ['10.0.0.0/8:443', 'fd00::/8']\nenvironment = ['APP_*', 'A']");
        let spec = |annotations: &str, env: &str| node.narrow_for(&spec(annotations, env));
        let narrowed = spec(
            r#""dev.shimwright.outbound":"10.1.0.0/16:443, [fd00::1]:53","dev.shimwright.environment":"A APP_B""#,
            r#""SHIMWRIGHT_OUTBOUND=10.1.2.3:443","SHIMWRIGHT_ENVIRONMENT=none""#,
        );
        let expected = limits("outbound = ['10.1.2.3:443']\nenvironment = []");
        assert_eq!(narrowed.unwrap(), expected);
        let refusal = spec("", r#""SHIMWRIGHT_OUTBOUND=10.0.0.0/8:443 10.0.0.0/8:80""#);
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "outbound may be narrowed only: it is 10.0.0.0/8:443 10.0.0.0/8:80 in \
             SHIMWRIGHT_OUTBOUND, and 10.0.0.0/8:443 [fd00::/8] on this node"
        );
        let refusal = spec(r#""dev.shimwright.environment":"*""#, "");
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains("it is * in"), "{refusal}");
        // Nothing can be added to nothing.
        let nothing = limits("outbound = []").narrow(&limits("outbound = ['::1']"), "x");
        assert!(
            nothing
                .unwrap_err()
                .to_string()
                .ends_with("none on this node")
        );
    }

    #[test]
    fn the_guest_is_given_the_variables_that_are_named() {
        let some = limits("environment = ['APP_*']");
        assert!(some.shows("APP_KEY") && !some.shows("PATH"));
        // Whoever serves the guest reads these.
        assert!(some.shows("SHIMWRIGHT_HTTP_ADDRESS") && some.shows("WASMTIME_HTTP_BACKLOG"));
        assert!(!some.shows("SHIMWRIGHT_TIME_LIMIT"));
        assert!(limits("").shows("PATH"));
    }

    #[test]
    fn an_engine_is_asked_for_what_only_it_can_keep() {
        let asked = |toml: &str| -> Vec<Limit> { limits(toml).kept_by_the_engine().collect() };
        assert_eq!(
            asked("time_limit = 1\nrootfs = 'none'\nenvironment = []"),
            []
        );
        assert_eq!(asked("name_lookup = 'container'"), []);
        assert_eq!(
            asked("stack = 65536\nname_lookup = 'none'\noutbound = []"),
            [Limit::Stack, Limit::Outbound, Limit::NameLookup]
        );
        assert_eq!(asked("network = 'none'\noutbound = []"), []);
        assert_eq!(
            asked("linear_memory = 65536\ntable_elements = 0\ninstances = 1"),
            [Limit::LinearMemory, Limit::TableElements, Limit::Instances]
        );
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
