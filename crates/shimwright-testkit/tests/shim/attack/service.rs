//! The shim process: its streams, its log and its socket.
