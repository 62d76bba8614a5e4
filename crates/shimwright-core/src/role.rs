//! The roles in which our program executes itself, named by environment variables.
//!
//! Nobody outside can choose one: containerd passes an administrator's variables only, and a
//! guest's variables are never those of a process of ours.

/// Set to the descriptor of the orders of a [`runner`](crate::runner).
pub(crate) const RUNNER: &str = "SHIMWRIGHT_RUNNER";
/// Set, to nothing, for a [`compiler`](crate::compiler).
pub(crate) const COMPILER: &str = "SHIMWRIGHT_COMPILER";
/// Set to the descriptor of the listening socket of a [server](crate::shim::serve).
pub(crate) const SERVER: &str = "SHIMWRIGHT_SERVER";
/// Set, to nothing, for a [fetcher](crate::content).
pub(crate) const FETCHER: &str = "SHIMWRIGHT_FETCHER";
