//! Every `unsafe` block of this crate: system calls that have no safe wrapper.
#![expect(
    unsafe_code,
    reason = "the one audited place for calls without a safe wrapper"
)]

pub(crate) mod bpf;
pub(crate) mod exec;
pub(crate) mod fd;
pub(crate) mod landlock;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod signal;
