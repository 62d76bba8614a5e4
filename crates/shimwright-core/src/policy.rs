//! What a WebAssembly guest is given of its container, decided here once for every engine.

use oci_spec::runtime::{Mount, Process, Spec};

use crate::workload::Preopen;

/// File systems of the kernel's that a guest has no use for and could do harm with: through
/// `/proc/self/mem` a guest that may open files below `/` would write to its own engine's memory.
const KERNEL_FILE_SYSTEMS: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"];

/// Takes from a spec what a WebAssembly container does not get.
pub(crate) fn restrict(spec: &mut Spec) {
    let is_kernels = |mount: &Mount| {
        mount.typ().as_deref().is_some_and(|kind| KERNEL_FILE_SYSTEMS.contains(&kind))
    };
    let kept = spec
        .mounts()
        .iter()
        .flatten()
        .filter(|mount| !is_kernels(mount))
        .cloned()
        .collect::<Vec<_>>();
    spec.set_mounts(Some(kept));
    if let Some(mut linux) = spec.linux().clone() {
        // They name places below the file systems that are left out.
        linux.set_masked_paths(None);
        linux.set_readonly_paths(None);
        spec.set_linux(Some(linux));
    }
    if let Some(mut process) = spec.process().clone() {
        // The runner executes nothing that could gain a privilege; the kernel holds it to that.
        process.set_no_new_privileges(Some(true));
        spec.set_process(Some(process));
    }
}

/// The directories a guest may use: the container's root. What is mounted below it, and what of
/// that can be written, is decided by the mounts of the spec, so by the kernel.
pub(crate) fn preopens() -> Vec<Preopen> {
    vec![Preopen::new("/", "/")]
}

/// The guest's environment. A variable without `=` has an empty value.
pub(crate) fn env(process: &Process) -> Vec<(String, String)> {
    process
        .env()
        .iter()
        .flatten()
        .map(|variable| {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_file_systems_are_left_out_and_volumes_are_kept() {
        let mut spec = Spec::default();
        let before = spec.mounts().clone().unwrap();
        assert!(before.iter().any(|mount| mount.typ().as_deref() == Some("proc")));
        restrict(&mut spec);
        let kinds: Vec<_> =
            spec.mounts().iter().flatten().filter_map(|mount| mount.typ().clone()).collect();
        assert!(kinds.iter().all(|kind| kind == "tmpfs"), "{kinds:?}");
        assert!(spec.linux().as_ref().unwrap().masked_paths().is_none());
        assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
    }

    #[test]
    fn variables_keep_their_order_and_values() {
        let mut process = Process::default();
        process.set_env(Some(vec!["B=2=3".into(), "A=".into(), "C".into()]));
        let expected = [("B", "2=3"), ("A", ""), ("C", "")];
        let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(env(&process), expected);
    }
}
