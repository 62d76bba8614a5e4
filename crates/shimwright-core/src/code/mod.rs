//! Code that a runner executes: from the image, through the compiler, into the cache.
//!
//! A launcher calls it while a container is created. The compiler and the fetcher are processes of
//! their own, in a jail.

pub(crate) mod application;
pub(crate) mod cache;
pub(crate) mod compiler;
pub(crate) mod content;
pub(crate) mod image;
pub(crate) mod planner;
