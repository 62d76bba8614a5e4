//! The limits of a guest: each is declared here once, with what a value may be, and is carried by
//! one [`Limits`] value from the node's file to the engine.
//!
//! To add one: a row below, what enforces it (`policy/limits.rs` for the sandbox, the runner, or an
//! engine through [`Workload`](crate::Workload)), and its test.

mod budget;
mod declare;
pub(crate) mod environment;
pub(crate) mod linear_memory;
mod setting;
pub(crate) mod table_elements;

use self::declare::limits;
use self::environment::Environment;
use self::linear_memory::PAGE;
use self::setting::{Destinations, Network, Rootfs};

/// The fewest files a runner can be set up and an engine can run with.
const FEWEST_FILES: u64 = 64;

/// The smallest stack that a function of a guest and those of its host can be called with.
const SMALLEST_STACK: u64 = 65536;

limits! {
    /// How long the guest may run, in whole seconds since its start.
    time_limit: u32, "a number of seconds above zero", |&seconds| seconds > 0;
    /// The number of descriptors of its process, its engine's included.
    open_files: u64, "a number of files, 64 or more", |&files| files >= FEWEST_FILES;
    /// How many bytes all its linear memories may hold together.
    linear_memory: u64, "a number of bytes, 65536 or more", |&bytes| bytes >= PAGE,
        engine LinearMemory;
    /// How many elements all its tables may hold together.
    table_elements: u64, "a number of elements", |_| true, engine TableElements;
    /// How many core instances it may consist of.
    instances: u64, "a number of instances, 1 or more", |&instances| instances > 0,
        engine Instances;
    /// How many bytes of stack its functions may use.
    stack: u64, "a number of bytes, 65536 or more", |&bytes| bytes >= SMALLEST_STACK,
        engine Stack;
    /// What it sees of the image.
    rootfs: Rootfs, "none, read-only or read-write", |_| true;
    /// What it can reach.
    network: Network, "none or container", |_| true;
    /// Where in that network it may connect and send to. Without a network there is nothing to be
    /// reached.
    outbound: Destinations, "none or a list of networks and ports", |_| true,
        engine Outbound if |limits| !limits.isolates_network();
    /// Where names are looked up.
    name_lookup: Network, "none or container", |_| true,
        engine NameLookup if |limits| !limits.allows_name_lookup();
    /// Which variables of its container it is given.
    environment: Environment, "none or a list of names", |_| true;
}

impl Limits {
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
    pub(crate) fn allows_name_lookup(&self) -> bool {
        self.name_lookup != Some(Network::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(toml: &str) -> Limits {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn each_limit_can_be_set_by_its_key_and_goes_to_the_runner_as_it_is() {
        let mut all = Limits::default();
        for (key, value) in [
            ("time_limit", "1"),
            ("open_files", "64"),
            ("linear_memory", "65536"),
            ("table_elements", "0"),
            ("instances", "1"),
            ("stack", "65536"),
            ("rootfs", "read-only"),
            ("network", "none"),
            ("outbound", "10.0.0.0/8:443, ::1"),
            ("name_lookup", "none"),
            ("environment", "A APP_*"),
        ] {
            all.set(key, value, key).unwrap();
        }
        // None was forgotten above.
        let written = serde_json::to_value(&all).unwrap();
        assert_eq!(written.as_object().unwrap().len(), Limits::KEYS.len());
        assert!(Limits::KEYS.iter().all(|key| !written[key].is_null()));
        assert_eq!(serde_json::from_value::<Limits>(written).unwrap(), all);
    }

    #[test]
    fn an_engine_is_asked_for_what_only_it_can_enforce() {
        let asked = |toml: &str| -> Vec<Limit> { limits(toml).of_the_engine().collect() };
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
    fn a_value_that_cannot_be_is_refused_and_named() {
        for (text, reason) in [
            ("time = 1", "time"),
            (
                "time_limit = 0",
                "time_limit: 0 is not a number of seconds above zero",
            ),
            ("open_files = 1", "open_files: 1 is not a number of files"),
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
    fn a_limit_is_only_made_narrower() {
        let node = limits("linear_memory = 65536");
        let wider = node.narrow(&limits("linear_memory = 65537"), "x");
        assert_eq!(
            wider.unwrap_err(),
            "linear_memory may be narrowed only: it is 65537 in x, and 65536 on this node"
        );
        // Nothing can be added to nothing.
        let nothing = limits("outbound = []").narrow(&limits("outbound = ['::1']"), "x");
        assert!(nothing.unwrap_err().ends_with("none on this node"));
        let both = node.narrow(&limits("stack = 65536"), "x").unwrap();
        assert_eq!(both, limits("linear_memory = 65536\nstack = 65536"));
    }
}
