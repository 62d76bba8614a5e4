//! The cases, by the part of the spec that they are about.

mod absent;
mod devices;
mod exec;
mod hooks;
mod limits;
mod mounts;
mod namespaces;
mod process;
mod refused;
mod root;
mod seccomp;

use crate::Case;

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = vec![Case::new("what containerd generates", |_| {})];
    cases.extend(process::cases());
    cases.extend(exec::cases());
    cases.extend(absent::cases());
    cases.extend(root::cases());
    cases.extend(mounts::cases());
    cases.extend(devices::cases());
    cases.extend(limits::cases());
    cases.extend(namespaces::cases());
    cases.extend(seccomp::cases());
    cases.extend(hooks::cases());
    cases.extend(refused::cases());
    cases
}
