//! The path of a cgroup as cgroupfs has it, parsed once.

use std::fmt::{self, Display, Formatter};
use std::path::{Component, Path, PathBuf};

/// A path from the top of each hierarchy, such as `/pod/a` of a spec's `cgroupsPath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupPath(PathBuf);

impl GroupPath {
    /// `None` for the top itself, for what leaves it, and for systemd's form `slice:prefix:name`.
    pub(crate) fn parse(path: &Path) -> Option<Self> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let is_plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let is_below =
            is_plain && !below.as_os_str().is_empty() && !below.to_string_lossy().contains(':');
        is_below.then(|| Self(Path::new("/").join(below)))
    }

    /// The top of each hierarchy.
    pub(crate) fn top() -> Self {
        Self(PathBuf::from("/"))
    }

    /// The group in this one that has this plain name.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    /// The directory of this group in the hierarchy that is mounted here.
    pub(super) fn at(&self, point: &Path) -> PathBuf {
        point.join(self.0.strip_prefix("/").unwrap_or(&self.0))
    }

    /// The path itself.
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Display for GroupPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_top_of_a_hierarchy() {
        let parse = |path: &str| GroupPath::parse(Path::new(path)).map(|path| path.to_string());
        assert_eq!(parse("/pod/a").as_deref(), Some("/pod/a"));
        assert_eq!(parse("pod/a").as_deref(), Some("/pod/a"));
        for other in ["/", "", "/a/../../b", "..", "system.slice:cri:a"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
