//! What containerd and the node hand over, parsed into types, and the record for a cleaner.

pub(crate) mod bundle;
pub(crate) mod identity;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod record;
