//! Devices of the node.
