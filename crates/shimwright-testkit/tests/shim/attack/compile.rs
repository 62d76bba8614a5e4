//! Compilers and fetchers: what they may use, and for how long.
