//! The capabilities of a process (`capabilities(7)`; OCI runtime spec, "Linux Process").

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};

/// What the host functions of WASI can make use of for a guest that is root: files whose modes would
/// not let it, the times of files of others, and ports below 1024. There is no way for a guest to ask
/// for anything else.
const USED_BY_GUESTS: [Capability; 4] = [
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::NetBindService,
];

/// Has a process say all of its five sets. A set that is absent is empty. runc 1.3
/// leaves every capability to a process without any set.
///
/// A guest is left with those that it can use.
pub(crate) fn complete(process: &mut Process, is_guest: bool) {
    let asked = process.capabilities().as_ref();
    let is_wanted = |capability: &Capability| !is_guest || USED_BY_GUESTS.contains(capability);
    let set = |set: fn(&LinuxCapabilities) -> &Option<Capabilities>| -> Option<Capabilities> {
        let asked = asked.and_then(|asked| set(asked).as_ref());
        let asked = asked.into_iter().flatten().copied();
        Some(asked.filter(is_wanted).collect::<HashSet<_>>())
    };
    // The default of the type is not empty.
    let mut complete = LinuxCapabilities::default();
    complete
        .set_bounding(set(LinuxCapabilities::bounding))
        .set_effective(set(LinuxCapabilities::effective))
        .set_permitted(set(LinuxCapabilities::permitted))
        .set_inheritable(set(LinuxCapabilities::inheritable))
        .set_ambient(set(LinuxCapabilities::ambient));
    process.set_capabilities(Some(complete));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(capabilities: &str) -> Process {
        serde_json::from_str(&format!(
            r#"{{"cwd":"/","user":{{"uid":0,"gid":0}}{capabilities}}}"#
        ))
        .unwrap()
    }

    fn sets(process: &Process) -> Vec<usize> {
        let all = process.capabilities().as_ref().unwrap();
        [
            all.bounding(),
            all.effective(),
            all.permitted(),
            all.inheritable(),
            all.ambient(),
        ]
        .map(|set| set.as_ref().unwrap().len())
        .to_vec()
    }

    #[test]
    fn absent_sets_are_empty() {
        for absent in ["", r#","capabilities":{}"#] {
            let mut process = process(absent);
            complete(&mut process, false);
            assert_eq!(sets(&process), [0; 5], "{absent}");
        }
    }

    #[test]
    fn a_program_keeps_what_is_asked_for_and_a_guest_what_it_can_use() {
        let asked = r#","capabilities":{"bounding":["CAP_SYS_ADMIN","CAP_FOWNER"],
            "effective":["CAP_FOWNER"],"ambient":["CAP_SYS_ADMIN"]}"#;
        let (mut program, mut guest) = (process(asked), process(asked));
        complete(&mut program, false);
        assert_eq!(sets(&program), [2, 1, 0, 0, 1]);
        complete(&mut guest, true);
        assert_eq!(sets(&guest), [1, 1, 0, 0, 0]);
    }
}
