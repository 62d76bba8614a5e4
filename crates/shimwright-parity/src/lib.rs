//! Runs OCI specs with a shim of ours and with runc, each on a fresh copy of the same root, and
//! compares all that a program inside and the node see of the two containers.
//!
//! A [`Case`] changes a spec as containerd generates it. [`compare`] runs it with both runtimes. Two
//! containers that differ are a failure, unless [`allowed`] has the difference, with a reason; a
//! difference that is allowed and is not there is a failure too. [`fields`] tells which fields of the
//! spec the cases set: each field that the types of `oci-spec` have needs one. [`document`] makes
//! `docs/parity.md` from all of this.

pub mod allowed;
pub mod case;
pub mod cases;
pub mod compare;
pub mod document;
pub mod fields;
mod holder;
mod normal;
mod observe;
mod ours;
mod runc;
mod session;
pub mod stage;
mod terminal;
pub mod world;

pub use case::{Case, Cgroups};
pub use stage::Stage;
pub use world::World;
