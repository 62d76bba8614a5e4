//! The limits of WebAssembly guests in the sandbox: narrowed by annotations and variables, applied to
//! the spec.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};

use crate::engine::limits::Limits;
use crate::error::Error;

/// Annotations of a container with this prefix are settings.
const ANNOTATION: &str = "dev.shimwright.";

/// Variables of a container with this prefix are settings. Annotations are a pod's, variables a
/// container's.
const VARIABLE: &str = "SHIMWRIGHT_";

/// The variables among those that say how an engine serves a guest, and those of other shims that
/// say the same. They are its own to read, and limit nothing.
const SERVING: [&str; 2] = ["SHIMWRIGHT_HTTP_", "WASMTIME_HTTP_"];

impl Limits {
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
            let set = wanted.set(&key, &value, &name);
            let narrowed = set.and_then(|()| limits.narrow(&wanted, &name));
            limits = narrowed.map_err(Error::invalid)?;
        }
        Ok(limits)
    }

    /// Whether the guest is given the variable of this name. What says how it is served always is:
    /// the engine reads it from there.
    pub(crate) fn shows(&self, name: &str) -> bool {
        let environment = self.environment.as_ref();
        is_serving(name) || environment.is_none_or(|environment| environment.allows(name))
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
    }

    #[test]
    fn the_guest_is_given_the_variables_that_are_named() {
        let some = limits("environment = ['APP_*']");
        assert!(some.shows("APP_KEY") && !some.shows("PATH"));
        // The server of the guest reads these.
        assert!(some.shows("SHIMWRIGHT_HTTP_ADDRESS") && some.shows("WASMTIME_HTTP_BACKLOG"));
        assert!(!some.shows("SHIMWRIGHT_TIME_LIMIT"));
        assert!(limits("").shows("PATH"));
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
