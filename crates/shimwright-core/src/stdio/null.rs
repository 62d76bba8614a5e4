//! A stream that leads nowhere: this process's own null device.
//!
//! A process that joins a container keeps its descriptors, and root in the container can change the
//! mode of what they refer to. So nobody gets the node's null device.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsmount, fsopen,
};

use crate::error::{Context, Error};

/// The path of the node's, which a client may name.
pub(super) const PATH: &str = "/dev/null";

const NAME: &str = "null";

/// Opens it, for reading and writing.
pub(super) fn open() -> Result<OwnedFd, Error> {
    static DIRECTORY: OnceLock<OwnedFd> = OnceLock::new();
    let open = || {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if !rustix::process::geteuid().is_root() {
            // Nobody else can make a device, nor a container: this is a test.
            return rustix::fs::open(PATH, flags, Mode::empty());
        }
        let directory = match DIRECTORY.get() {
            Some(directory) => directory,
            None => {
                let made = make()?;
                DIRECTORY.get_or_init(|| made)
            }
        };
        rustix::fs::openat(directory, NAME, flags, Mode::empty())
    };
    open().context("open a null device")
}

/// A file system in memory, mounted nowhere, that holds the device and can no longer be changed: a
/// device is written to all the same.
fn make() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let directory = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let all = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let device = makedev(1, 3);
    mknodat(&directory, NAME, FileType::CharacterDevice, all, device)?;
    // Whatever the file mode creation mask is.
    rustix::fs::chmodat(&directory, NAME, all, rustix::fs::AtFlags::empty())?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_reconfigure(&context)?;
    Ok(directory)
}
