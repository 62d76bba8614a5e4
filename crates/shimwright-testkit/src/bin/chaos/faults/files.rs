//! Files that a shim needs: a full disk, a read-only one, and what is wrong with the specification.

use std::fs::{self, OpenOptions};
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use serde_json::json;
use shimwright_guests::IDLE;
use shimwright_testkit::protos::ttrpc;
use shimwright_testkit::{Result, Shim};

use crate::round::{CALL, ID, Round, Setting, code, timed};

/// A file system over the bundle's directory, with what is in it.
pub(super) struct Cover<'a>(&'a Path);

impl<'a> Cover<'a> {
    /// With room for little more.
    pub(super) fn small(directory: &'a Path, room: u64) -> Result<Self> {
        let config = fs::read(directory.join("config.json"))?;
        let size = (config.len() as u64).next_multiple_of(4096) + room;
        let options = std::ffi::CString::new(format!("size={size}"))?;
        mount(
            "tmpfs",
            directory,
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )?;
        let cover = Self(directory);
        fs::write(directory.join("config.json"), config)?;
        Ok(cover)
    }

    pub(super) fn bound(directory: &'a Path) -> Result<Self> {
        mount_bind(directory, directory)?;
        Ok(Self(directory))
    }

    pub(super) fn read_only(&self, yes: bool) -> Result<()> {
        let flags = if yes {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        Ok(mount_remount(self.0, MountFlags::BIND | flags, "")?)
    }
}

impl Drop for Cover<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

pub(super) fn full_disk(round: &Round) -> Result<()> {
    let bundle = round.bundle(IDLE)?;
    let directory = bundle.directory().to_owned();
    round.fault();
    let cover = Cover::small(&directory, 4096 * round.below(8))?;
    let ran = round.containerd.run_start(&bundle, &[])?;
    if let Ok(address) = ran.text() {
        let shim = Shim::connect(address.trim())?;
        let created = timed("Create", CALL, || shim.create(&bundle))?;
        named(&created, "No space left on device")?;
        round.recover(&bundle, &shim)?;
    } else {
        round.clean_after(&bundle)?;
    }
    drop(cover);
    Ok(())
}

/// An error must say why.
pub(super) fn named<T>(outcome: &ttrpc::Result<T>, reason: &str) -> Result<()> {
    match outcome {
        Err(error) if !error.to_string().contains(reason) => {
            Err(format!("instead of {reason:?} the reason is {error}").into())
        }
        _ => Ok(()),
    }
}

pub(super) fn read_only_bundle(round: &Round) -> Result<()> {
    let bundle = round.bundle(IDLE)?;
    let directory = bundle.directory().to_owned();
    let cover = Cover::bound(&directory)?;
    round.fault();
    if round.below(2) == 0 {
        cover.read_only(true)?;
        if round.containerd.run_start(&bundle, &[])?.status.success() {
            return Err("the shim starts although it cannot write its address".into());
        }
        return round.clean_after(&bundle);
    }
    let setting = round.started(bundle)?;
    cover.read_only(true)?;
    let created = timed("Create", CALL, || setting.shim.create(&setting.bundle))?;
    if created.is_ok() {
        return Err("a container is created although nothing can be written down".into());
    }
    named(&created, "Read-only file system")?;
    round.recover(&setting.bundle, &setting.shim)
}

pub(super) fn read_only_after_crash(round: &Round) -> Result<()> {
    let bundle = round.bundle(IDLE)?;
    let directory = bundle.directory().to_owned();
    let cover = Cover::bound(&directory)?;
    let setting = round.created(bundle)?;
    setting.shim.start(ID)?;
    let pid = setting.shim.connect_task(ID)?.task_pid;
    cover.read_only(true)?;
    round.kill_shim(&setting)?;
    // It cannot do everything, but the guest must not go on.
    let _ = round.containerd.delete(&directory, ID);
    if round
        .containerd
        .snapshot()
        .processes
        .iter()
        .any(|one| one.pid.unsigned_abs() == pid)
    {
        return Err("the guest lives on".into());
    }
    cover.read_only(false)?;
    round.clean_after(&setting.bundle)
}

pub(super) fn refused_create(round: &Round, setting: &Setting) -> Result<()> {
    round.fault();
    let created = timed("Create", CALL, || setting.shim.create(&setting.bundle))?;
    if created.as_ref().is_err_and(|error| code(error).is_none()) {
        return Err("Create has not been answered".into());
    }
    round.recover(&setting.bundle, &setting.shim)
}

pub(super) fn no_config(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(IDLE)?)?;
    fs::remove_file(setting.bundle.directory().join("config.json"))?;
    refused_create(round, &setting)
}

pub(super) fn short_config(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(IDLE)?)?;
    let file = OpenOptions::new()
        .write(true)
        .open(setting.bundle.directory().join("config.json"))?;
    file.set_len(round.below(file.metadata()?.len()))?;
    refused_create(round, &setting)
}

pub(super) fn wrong_config(round: &Round) -> Result<()> {
    let setting = round.started(round.bundle(IDLE)?)?;
    let path = setting.bundle.directory().join("config.json");
    let mut config = fs::read(&path)?;
    // The path of the control groups says what is looked at afterwards.
    let text = String::from_utf8_lossy(&config).into_owned();
    let kept = text.find("cgroupsPath").ok_or("there is no cgroupsPath")?;
    let kept = kept..kept + 128;
    let place = loop {
        let place = usize::try_from(round.below(config.len() as u64))?;
        if !kept.contains(&place) {
            break place;
        }
    };
    config[place] = u8::try_from(round.below(256))?;
    fs::write(&path, config)?;
    refused_create(round, &setting)
}

pub(super) fn no_config_after_crash(round: &Round) -> Result<()> {
    let setting = round.idle()?;
    let path = setting.bundle.directory().join("config.json");
    if round.below(2) == 0 {
        fs::remove_file(path)?;
    } else {
        fs::write(path, "{")?;
    }
    round.kill_shim(&setting)?;
    round.clean_after(&setting.bundle)
}

pub(super) fn no_cgroup(round: &Round) -> Result<()> {
    let namespace = round.containerd.namespace();
    let path = format!("/{namespace}/{}", "x/".repeat(2100));
    let bundle = round.bundle(IDLE)?;
    let bundle = bundle.spec(|spec| spec["linux"]["cgroupsPath"] = json!(path))?;
    let setting = round.started(bundle)?;
    round.fault();
    let created = setting.shim.create(&setting.bundle);
    if created.is_ok() {
        return Err("a container is created without its control group".into());
    }
    named(&created, "File name too long")?;
    round.recover(&setting.bundle, &setting.shim)
}
