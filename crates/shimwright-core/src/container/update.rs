//! Changes the limits and the device rules of a running container, all or none.

use std::io;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxResources};

use crate::cgroup::devices::{self, Rules};
use crate::cgroup::{Cgroups, limits};
use crate::config::bundle::{Bundle, write_atomically};
use crate::error::{Context, Error};

/// Changes the limits of a container, and its device rules if there are any among the resources.
///
/// Launcher process.
///
/// # Errors
///
/// Why not. All of it is then as it was; if something could not be restored, the error says so.
pub(crate) fn update(
    bundle: &Bundle,
    cgroups: &Cgroups,
    resources: &LinuxResources,
) -> Result<(), Error> {
    let change = Change::wanted(bundle, resources)?;
    let applied = limits::update(cgroups, resources)?;
    match change.map(|change| change.make(cgroups)) {
        Some(Err(error)) => Err(applied.take_back(error)),
        _ => Ok(()),
    }
}

/// Other device rules than those before.
#[derive(Debug)]
struct Change<'a> {
    list: &'a [LinuxDeviceCgroup],
    rules: Rules,
    /// Where they are written down.
    file: PathBuf,
}

impl<'a> Change<'a> {
    /// The change that resources ask for. The CRI plugin sends those of the spec along with each
    /// new limit: what others have allowed the container since, such as the processors of a vendor's
    /// tool, must not be lost by that, so only other rules than the last ones are a change.
    fn wanted(bundle: &Bundle, resources: &'a LinuxResources) -> Result<Option<Self>, Error> {
        let Some(list) = resources.devices().as_deref().filter(|l| !l.is_empty()) else {
            return Ok(None);
        };
        let spec = bundle.spec()?;
        let nodes = devices::nodes(&spec);
        let rules = Rules::new(list, nodes)?;
        let file = bundle.private().join("devices.json");
        let last = match std::fs::read(&file) {
            Ok(text) => last(&text, nodes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Rules::of_spec(&spec).ok(),
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", file.display()));
            }
        };
        Ok((last.as_ref() != Some(&rules)).then_some(Self { list, rules, file }))
    }

    fn make(&self, cgroups: &Cgroups) -> Result<(), Error> {
        // Should this process be killed, nobody knows the rules that are in force.
        self.write(&None)?;
        devices::replace(cgroups, &self.rules)?;
        self.write(&Some(self.list))
    }

    fn write(&self, list: &Option<&[LinuxDeviceCgroup]>) -> Result<(), Error> {
        let text = serde_json::to_vec(list).context("encode device rules")?;
        write_atomically(&self.file, &text)
            .with_context(|| format!("write {}", self.file.display()))
    }
}

/// The rules of the last change, if they are known.
fn last(text: &[u8], nodes: &[LinuxDevice]) -> Option<Rules> {
    let list: Option<Vec<LinuxDeviceCgroup>> = serde_json::from_slice(text).ok()?;
    Rules::new(&list?, nodes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(devices: &str) -> LinuxResources {
        serde_json::from_str(&format!(r#"{{"devices":{devices}}}"#)).unwrap()
    }

    #[test]
    fn only_other_rules_than_the_last_are_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(directory.path());
        bundle.make_private().unwrap();
        let of_spec = r#"[{"allow":false,"access":"rwm"}]"#;
        let other = r#"[{"allow":true,"type":"c","major":42,"access":"r"}]"#;
        let spec =
            format!(r#"{{"ociVersion":"1","linux":{{"resources":{{"devices":{of_spec}}}}}}}"#);
        std::fs::write(directory.path().join("config.json"), spec).unwrap();
        let is_change = |devices: &str| {
            let resources = resources(devices);
            Change::wanted(&bundle, &resources).unwrap().is_some()
        };
        assert_eq!(["[]", of_spec, other].map(is_change), [false, false, true]);
        let resources = resources(other);
        let change = Change::wanted(&bundle, &resources).unwrap().unwrap();
        change.write(&Some(change.list)).unwrap();
        assert_eq!(["[]", of_spec, other].map(is_change), [false, true, false]);
        change.write(&None).unwrap();
        assert_eq!(["[]", of_spec, other].map(is_change), [false, true, true]);
    }

    #[test]
    fn bad_rules_change_no_limit() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(directory.path());
        std::fs::write(
            directory.path().join("config.json"),
            r#"{"ociVersion":"1"}"#,
        )
        .unwrap();
        std::fs::write(directory.path().join("pids.max"), "max").unwrap();
        let cgroups = Cgroups::of_one("", directory.path());
        let resources =
            serde_json::from_str(r#"{"pids":{"limit":5},"devices":[{"allow":true}]}"#).unwrap();
        let error = update(&bundle, &cgroups, &resources).unwrap_err();
        assert_eq!(error.to_string(), "resources.devices[0]: access is empty");
        let pids = std::fs::read_to_string(directory.path().join("pids.max")).unwrap();
        assert_eq!(pids, "max");
    }
}
