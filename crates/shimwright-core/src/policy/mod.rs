//! What a WebAssembly guest may see and use. Core decides it for every engine.

pub(crate) mod capabilities;
mod limits;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Process, Spec};

use crate::engine::limits::Limits;

/// File systems of the kernel's that a guest has no use for and could do harm with: through
/// `/proc/self/mem` a guest that may open files below `/` would write to its own engine's memory.
const KERNEL_FILE_SYSTEMS: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts"];

/// Whether a mount shows a file or directory of the node.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options.any(|option| option == "bind" || option == "rbind")
}

/// Takes from a spec what a WebAssembly container does not get.
///
/// Setting sysctls and LSM profiles takes a `/proc` inside the sandbox: where the spec asks for
/// them it is mounted, and covered by an empty directory before the guest starts.
pub(crate) fn restrict(spec: &mut Spec) {
    let all = spec.mounts().as_deref().unwrap_or_default();
    let (left_out, mut kept): (Vec<Mount>, Vec<Mount>) =
        all.iter().cloned().partition(shows_the_kernel);
    let linux = spec.linux().as_ref();
    let mut masked = linux.map_or(Vec::new(), |linux| {
        outside(linux.masked_paths().as_deref(), &left_out)
    });
    let read_only = linux.map_or(Vec::new(), |linux| {
        outside(linux.readonly_paths().as_deref(), &left_out)
    });
    if needs_proc(spec) {
        let is_proc = |mount: &Mount| mount.typ().as_deref() == Some("proc");
        let proc: Vec<Mount> = left_out.into_iter().filter(is_proc).collect();
        let places = proc.iter().map(|mount| mount.destination());
        masked.extend(places.map(|place| place.to_string_lossy().into_owned()));
        kept.splice(0..0, proc);
    }
    for mount in &mut kept {
        disable_devices(mount);
    }
    let devices = Path::new(DEVICES);
    if !kept.iter().any(|mount| mount.destination() == devices) {
        // The image's own could not be used.
        kept.insert(0, own_devices());
    }
    let some = |paths: Vec<String>| Some(paths).filter(|paths| !paths.is_empty());
    spec.set_mounts(Some(kept));
    if let Some(mut linux) = spec.linux().clone() {
        linux.set_masked_paths(some(masked));
        linux.set_readonly_paths(some(read_only));
        spec.set_linux(Some(linux));
    }
    if let Some(mut process) = spec.process().clone() {
        // The runner executes nothing that could gain a privilege; the kernel holds it to that.
        process.set_no_new_privileges(Some(true));
        // A terminal of the runner is made without `devpts`, outside of the container.
        process.set_terminal(None);
        spec.set_process(Some(process));
    }
}

/// Whether setting up the sandbox takes a `/proc`: sysctls and AppArmor profiles are set there.
fn needs_proc(spec: &Spec) -> bool {
    let sysctl = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref());
    let process = spec.process().as_ref();
    sysctl.is_some_and(|sysctl| !sysctl.is_empty())
        || process.is_some_and(|process| process.apparmor_profile().is_some())
}

fn shows_the_kernel(mount: &Mount) -> bool {
    let kind = mount.typ().as_deref();
    kind.is_some_and(|kind| KERNEL_FILE_SYSTEMS.contains(&kind))
}

/// Those paths that are not below one of these mounts: most of what a spec masks is below the file
/// systems that are left out.
fn outside(paths: Option<&[String]>, mounts: &[Mount]) -> Vec<String> {
    let is_below = |path: &&String| {
        let mut places = mounts.iter().map(|mount| mount.destination());
        places.any(|place| Path::new(path).starts_with(place))
    };
    let paths = paths.unwrap_or_default().iter();
    paths.filter(|path| !is_below(path)).cloned().collect()
}

/// Where the device nodes are that every container gets.
const DEVICES: &str = "/dev";

/// Has the kernel open no device node of a guest's volume. The nodes of `/dev` are not the image's.
fn disable_devices(mount: &mut Mount) {
    if mount.destination() == Path::new(DEVICES) {
        return;
    }
    let is_bind = is_bind(mount);
    let options = mount.options().iter().flatten();
    let kept = options.filter(|option| !["dev", "rdev"].contains(&option.as_str()));
    let wanted = if is_bind { "rnodev" } else { "nodev" };
    let options = kept.cloned().chain([wanted.to_owned()]).collect();
    mount.set_options(Some(options));
}

/// The `/dev` that containerd gives every container.
fn own_devices() -> Mount {
    let options = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let mut mount = Mount::default();
    mount
        .set_destination(DEVICES.into())
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(options.map(str::to_owned).to_vec()));
    mount
}

/// The directories a guest may use, and how it finds them: the container's root. What is mounted below it, and what of
/// that can be written, is decided by the mounts of the spec, so by the kernel.
pub(crate) fn preopens() -> Vec<(PathBuf, String)> {
    vec![("/".into(), "/".to_owned())]
}

/// The guest's environment, of what its limits let it have.
pub(crate) fn env(process: &Process, limits: &Limits) -> Vec<(String, String)> {
    let mut variables = variables(process);
    variables.retain(|(name, _)| limits.shows(name));
    variables
}

/// The variables of a process. One without `=` has an empty value.
fn variables(process: &Process) -> Vec<(String, String)> {
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
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["a"],"user":{"uid":0,"gid":0}},
            "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
            {"destination":"/sys","type":"sysfs","source":"sysfs"},
            {"destination":"/dev/pts","type":"devpts","source":"devpts"},
            {"destination":"/data","type":"bind","source":"/data","options":["bind","ro"]},
            {"destination":"/dev","type":"tmpfs","source":"tmpfs"}],
            "linux":{"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"]}}"#,
        )
        .unwrap();
        let before = spec.mounts().clone().unwrap();
        assert!(
            before
                .iter()
                .any(|mount| mount.typ().as_deref() == Some("proc"))
        );
        restrict(&mut spec);
        let kinds: Vec<_> = spec
            .mounts()
            .iter()
            .flatten()
            .filter_map(|mount| mount.typ().clone())
            .collect();
        assert_eq!(kinds, ["bind", "tmpfs"]);
        let options = spec.mounts().as_ref().unwrap()[0].options().clone();
        assert_eq!(options.unwrap(), ["bind", "ro", "rnodev"]);
        assert!(spec.linux().as_ref().unwrap().masked_paths().is_none());
        assert_eq!(
            spec.process().as_ref().unwrap().no_new_privileges(),
            Some(true)
        );
    }

    #[test]
    fn proc_is_mounted_and_covered_where_setting_up_takes_it() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/dev","type":"tmpfs"},
            {"destination":"/proc","type":"proc","source":"proc"}],
            "linux":{"sysctl":{"net.ipv4.ip_unprivileged_port_start":"0"}}}"#,
        )
        .unwrap();
        restrict(&mut spec);
        assert_eq!(
            spec.mounts().as_ref().unwrap()[0].typ().as_deref(),
            Some("proc")
        );
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(
            linux.masked_paths().as_deref(),
            Some(&["/proc".to_owned()][..])
        );
    }

    #[test]
    fn devices_of_images_and_volumes_are_disabled() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","mounts":[
            {"destination":"/tmp","type":"tmpfs","options":["dev","size=1k"]},
            {"destination":"/a","options":["rbind","rdev"]}]}"#,
        )
        .unwrap();
        restrict(&mut spec);
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!(mounts[0].destination(), Path::new("/dev"));
        let options = |index: usize| mounts[index].options().clone().unwrap();
        assert!(!options(0).contains(&"nodev".to_owned()));
        assert_eq!(options(1), ["size=1k", "nodev"]);
        assert_eq!(options(2), ["rbind", "rnodev"]);
    }

    #[test]
    fn what_is_masked_elsewhere_stays_masked() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/proc","type":"proc"},
            {"destination":"/sys","type":"sysfs"}],
            "linux":{"maskedPaths":["/proc/kcore","/secret"],
            "readonlyPaths":["/proc/sys","/procedures"]}}"#,
        )
        .unwrap();
        restrict(&mut spec);
        let linux = spec.linux().as_ref().unwrap();
        let one = |path: &str| Some(vec![path.to_owned()]);
        assert_eq!(linux.masked_paths(), &one("/secret"));
        assert_eq!(linux.readonly_paths(), &one("/procedures"));
    }

    #[test]
    fn variables_keep_their_order_and_values() {
        let mut process = Process::default();
        process.set_env(Some(vec!["B=2=3".into(), "A=".into(), "C".into()]));
        let expected = [("B", "2=3"), ("A", ""), ("C", "")];
        let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(env(&process, &Limits::default()), expected);
    }
}
