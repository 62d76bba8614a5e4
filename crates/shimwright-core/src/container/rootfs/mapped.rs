//! Root file systems that show other ids than their files have, as containerd asks for with the options
//! `uidmap=` and `gidmap=` (`core/mount/mount_idmapped_linux.go` there): images of a container with a
//! user namespace.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::container::root::ids::{self, Range};
use crate::container::root::options::Options;
use crate::engine::BoxError;
use crate::sys;
use crate::sys::mount::{Change, clone_mount};
use crate::sys::process::Forked;

/// The ids that a file system is to show.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ids {
    users: Vec<Range>,
    groups: Vec<Range>,
}

impl Ids {
    /// Takes them from options; none if only one of users and groups is there, as containerd does.
    pub(super) fn take(options: &[String]) -> Result<(Option<Self>, Vec<String>), BoxError> {
        let (mut users, mut groups, mut rest) = (None, None, Vec::new());
        for option in options {
            if let Some(map) = option.strip_prefix("uidmap=") {
                users = Some(parse(map)?);
            } else if let Some(map) = option.strip_prefix("gidmap=") {
                groups = Some(parse(map)?);
            } else {
                rest.push(option.clone());
            }
        }
        let both = users.zip(groups);
        let ids = both.map(|(users, groups)| Self { users, groups });
        Ok((ids, rest))
    }

    /// Has what is mounted at a point show them.
    pub(super) fn show_at(&self, point: &Path) -> Result<(), BoxError> {
        let clone = self.shown(point, 0)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(clone, "", CWD, point, flags)?)
    }

    /// A detached copy of what is at a path, which shows them.
    fn shown(&self, path: &Path, attributes: u64) -> io::Result<OwnedFd> {
        let namespace = ids::namespace(&self.users, &self.groups)?;
        let clone = clone_mount(CWD, path, true)?;
        let change = Change {
            set: attributes,
            propagation: libc::MS_PRIVATE,
            ids_of: Some(namespace.as_fd()),
            ..Change::default()
        };
        change.of(&clone, true)?;
        Ok(clone)
    }

    /// Mounts an overlay over layers that show them.
    ///
    /// The kernel takes layers by their paths. So that nobody else sees the copies that have other ids, and
    /// none is left behind whatever happens, another process mounts them, in a mount namespace that
    /// ends with it.
    pub(super) fn overlay(&self, options: &[String], point: &Path) -> Result<(), BoxError> {
        let layers = Layers::find(options)?;
        let mapped = self.shown(&layers.common, libc::MOUNT_ATTR_RDONLY)?;
        let options = layers.relative(options);
        let node = File::open("/proc/self/ns/mnt")?;
        let (said, says) = io::pipe()?;
        let child = match sys::process::fork()? {
            Forked::Child => {
                drop(said);
                let made = mount_apart(&mapped, &options, point, &node);
                if let Err(error) = &made {
                    let _ = io::Write::write_all(&mut &says, error.to_string().as_bytes());
                }
                sys::process::exit_now(u8::from(made.is_err()))
            }
            Forked::Parent(pid) => Pid::from_raw(pid),
        };
        drop(says);
        let reason = io::read_to_string(said)?;
        let waited =
            rustix::io::retry_on_intr(|| rustix::process::waitpid(child, WaitOptions::empty()));
        let status = waited?.and_then(|(_, status)| status.exit_status());
        if status == Some(0) {
            return Ok(());
        }
        Err(format!("the overlay of mapped layers: {reason}").into())
    }
}

/// Mounts the overlay in a mount namespace of this process, and moves it to the node's.
fn mount_apart(mapped: &OwnedFd, options: &[String], point: &Path, node: &File) -> io::Result<()> {
    sys::process::unshare(UnshareFlags::NEWNS)?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mapped, "", CWD, point, flags)?;
    // The paths of the layers begin here.
    rustix::process::fchdir(mapped)?;
    let parsed = Options::parse(options.iter().map(String::as_str));
    let flags = u32::try_from(parsed.flags).map_err(io::Error::other)?;
    let data = CString::new(parsed.data.join(","))?;
    let flags = MountFlags::from_bits_retain(flags);
    rustix::mount::mount("overlay", point, "overlay", flags, data.as_c_str())?;
    let overlay = clone_mount(CWD, point, false)?;
    Change::propagation(libc::MS_PRIVATE).of(&overlay, false)?;
    rustix::thread::move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&overlay, "", CWD, point, flags)?)
}

/// The lower layers of an overlay.
#[derive(Debug, PartialEq, Eq)]
struct Layers {
    /// The directory that all are in.
    common: PathBuf,
    /// Each of them, as seen from there.
    below: Vec<PathBuf>,
}

const LOWER: &str = "lowerdir=";

impl Layers {
    fn find(options: &[String]) -> Result<Self, BoxError> {
        let lower = options.iter().find_map(|option| option.strip_prefix(LOWER));
        let lower = lower.ok_or("an overlay without lowerdir")?;
        let all: Vec<_> = lower.split(':').map(Path::new).collect();
        let mut common = all
            .first()
            .and_then(|first| first.parent())
            .ok_or("an overlay without layers")?;
        while !all.iter().all(|layer| layer.starts_with(common)) {
            common = common.parent().ok_or("layers without a common directory")?;
        }
        if !common.is_absolute() || common == Path::new("/") {
            return Err("layers without a common directory".into());
        }
        let below = all
            .iter()
            .map(|layer| Ok(layer.strip_prefix(common)?.to_owned()));
        Ok(Self {
            common: common.to_owned(),
            below: below.collect::<Result<_, BoxError>>()?,
        })
    }

    /// The options, with layers as seen from the common directory.
    fn relative(&self, options: &[String]) -> Vec<String> {
        let below: Vec<_> = self
            .below
            .iter()
            .map(|layer| layer.to_string_lossy())
            .collect();
        let lower = format!("{LOWER}{}", below.join(":"));
        let others = options.iter().filter(|option| !option.starts_with(LOWER));
        others.cloned().chain([lower]).collect()
    }
}

/// `CONTAINER:NODE:COUNT`, separated by commas.
fn parse(map: &str) -> Result<Vec<Range>, BoxError> {
    let range = |text: &str| -> Result<Range, BoxError> {
        let fields = text
            .split(':')
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>();
        match fields.as_deref() {
            Ok(&[inside, outside, count]) => Ok((inside, outside, count)),
            _ => Err(format!("{text:?} is no map of ids").into()),
        }
    };
    map.split(',').map(range).collect()
}

/// Reads options as containerd sends them, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(options: &str) {
    let options: Vec<_> = options.lines().map(str::to_owned).collect();
    if let Ok((ids, rest)) = Ids::take(&options) {
        assert!(rest.len() + 2 * usize::from(ids.is_some()) <= options.len());
    }
    if let Ok(layers) = Layers::find(&options) {
        assert!(layers.common.is_absolute() && layers.common != Path::new("/"));
        assert!(layers.below.iter().all(|layer| layer.is_relative()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: &[&str]) -> Vec<String> {
        options.iter().map(|&option| option.to_owned()).collect()
    }

    #[test]
    fn maps_are_taken_from_the_options() {
        let all = options(&["ro", "uidmap=0:1000:10,10:5:1", "gidmap=0:2000:10"]);
        let (ids, rest) = Ids::take(&all).unwrap();
        let ids = ids.unwrap();
        assert_eq!(ids.users, [(0, 1000, 10), (10, 5, 1)]);
        assert_eq!(ids.groups, [(0, 2000, 10)]);
        assert_eq!(rest, ["ro"]);
        for all in [&["uidmap=0:1000:10"][..], &["ro"]] {
            assert_eq!(Ids::take(&options(all)).unwrap().0, None);
        }
        for map in ["", "0:1", "0:1:2:3", "0:-1:2", "a:b:c", "0:1:4294967296"] {
            let all = options(&[&format!("uidmap={map}"), "gidmap=0:1:1"]);
            assert!(Ids::take(&all).is_err(), "{map}");
        }
    }

    #[test]
    fn layers_are_seen_from_the_directory_they_share() {
        let all = options(&[
            "lowerdir=/s/12/fs:/s/1/fs:/s/13/fs",
            "upperdir=/s/14/fs",
            "index=off",
        ]);
        let layers = Layers::find(&all).unwrap();
        assert_eq!(layers.common, Path::new("/s"));
        let relative = [
            "upperdir=/s/14/fs",
            "index=off",
            "lowerdir=12/fs:1/fs:13/fs",
        ];
        assert_eq!(layers.relative(&all), relative);
        let one = Layers::find(&options(&["lowerdir=/s/1/fs"])).unwrap();
        assert_eq!((one.common, one.below), ("/s/1".into(), vec!["fs".into()]));
        for lower in [
            "lowerdir=/a:/b",
            "lowerdir=a:b",
            "upperdir=/a",
            "lowerdir=/",
        ] {
            assert!(Layers::find(&options(&[lower])).is_err(), "{lower}");
        }
    }
}
