//! Our processes: the roles of the binary, the launcher, and the reaper of children.

pub(crate) mod handle;
pub(crate) mod idle;
pub(crate) mod launcher;
pub(crate) mod message;
pub(crate) mod reaper;
pub(crate) mod role;
