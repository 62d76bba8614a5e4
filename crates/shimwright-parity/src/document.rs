//! Makes `docs/parity.md` of the cases and of what is allowed.
