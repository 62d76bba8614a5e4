//! The socket of a shim process, and the second name that tools know it by.
//!
//! Tools such as `ctr shim` compute the address of a shim from the id of a container or of its
//! pod's sandbox (containerd, `SocketAddress` in `pkg/shim`). That name does not say which runtime
//! has the container, so two of them in one group would take each other's place. Ours is another
//! one, and the one that tools compute is a link to it, unless somebody else has it.

use std::io;
use std::path::{Path, PathBuf};

use containerd_shim::Flags;

use crate::config::bundle::validate_id;

/// The variable that tells a shim process the name of its socket for tools, if it has one.
pub(super) const ALIAS: &str = "SHIMWRIGHT_ALIAS";

/// The socket of a shim process.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) path: PathBuf,
    /// The name of tools, if the group can have one.
    pub(super) alias: Option<PathBuf>,
}

impl Socket {
    /// That of this process, which is a shim process.
    pub(super) fn own(flags: &Flags) -> Self {
        Self {
            path: PathBuf::from(&flags.socket),
            alias: std::env::var_os(ALIAS).map(PathBuf::from),
        }
    }

    /// The socket at this address, of a group with that one for tools.
    ///
    /// A group that is no id has none: its address could be that of another namespace's container.
    pub(super) fn new(address: &str, group: &str, for_tools: &str) -> Self {
        let alias = validate_id("group", group).is_ok();
        Self {
            path: path(address),
            alias: alias.then(|| path(for_tools)),
        }
    }

    /// Lets tools find the socket. That fails if another runtime has the name, or another of our
    /// engines; nothing but tools needs it.
    ///
    /// The directory is locked by the caller, so no other shim of ours looks at the same time.
    pub(super) fn link(&self) {
        let (Some(alias), Some(name)) = (&self.alias, self.path.file_name()) else {
            return;
        };
        let target = std::fs::read_link(alias);
        let is_dead = |target: &PathBuf| !alias.with_file_name(target).exists();
        match target {
            Ok(target) if is_dead(&target) => {
                let _ = std::fs::remove_file(alias);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return,
        }
        let _ = std::os::unix::fs::symlink(name, alias);
    }

    /// Removes the socket, and the link with it.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
        self.unlink();
    }

    /// Removes the link if the socket is gone.
    pub(super) fn unlink(&self) {
        if let Some(alias) = &self.alias
            && !self.path.exists()
            && std::fs::read_link(alias).is_ok_and(|target| self.path.ends_with(target))
        {
            let _ = std::fs::remove_file(alias);
        }
    }
}

/// The path of a socket's address.
pub(super) fn path(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap_or(address))
}

/// The name of the socket of this group for tools, in the directory of another socket.
pub(super) fn alias_beside(socket: &Path, flags: &Flags, group: &str) -> Option<PathBuf> {
    let address = containerd_shim::socket_address(&flags.address, &flags.namespace, group);
    validate_id("group", group).ok()?;
    Some(socket.with_file_name(path(&address).file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_tools_is_taken_from_nobody_and_goes_with_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let ours = Socket::new(&at("ours"), "g", &at("alias"));
        let other = Socket::new(&at("other"), "g", &at("alias"));
        let target = || std::fs::read_link(at("alias")).ok();
        std::fs::write(&ours.path, "").unwrap();
        std::fs::write(&other.path, "").unwrap();
        ours.link();
        other.link();
        assert_eq!(target(), Some("ours".into()));
        other.remove();
        assert_eq!(target(), Some("ours".into()));
        // One that was killed leaves both.
        std::fs::remove_file(&ours.path).unwrap();
        std::fs::write(&other.path, "").unwrap();
        other.link();
        assert_eq!(target(), Some("other".into()));
        ours.unlink();
        assert_eq!(target(), Some("other".into()));
        other.remove();
        assert_eq!(target(), None);
        // The socket of another runtime.
        std::fs::write(at("alias"), "").unwrap();
        std::fs::write(&ours.path, "").unwrap();
        ours.link();
        ours.remove();
        assert!(Path::new(&at("alias")).exists());
    }

    #[test]
    fn a_group_that_is_no_id_has_no_name_for_tools() {
        for group in ["../other/a", "a/b", "", "node/1"] {
            assert!(
                Socket::new("/s/a", group, "/s/b").alias.is_none(),
                "{group}"
            );
        }
    }
}
