//! Specs that lack fields, or have ones that nothing keeps to.
