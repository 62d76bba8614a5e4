//! The options of a mount, as runc reads them (`libcontainer/specconv/spec_linux.go` there).
//!
//! libcontainer 0.7 passes propagation, `sync`, `dirsync` and some more to no call, and refuses names
//! that runc takes.

use libc::{
    MS_BIND, MS_DIRSYNC, MS_I_VERSION, MS_LAZYTIME, MS_MANDLOCK, MS_NOATIME, MS_NODEV,
    MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_PRIVATE, MS_RDONLY, MS_REC,
    MS_RELATIME, MS_REMOUNT, MS_SHARED, MS_SILENT, MS_SLAVE, MS_STRICTATIME, MS_SYNCHRONOUS,
    MS_UNBINDABLE,
};

/// Flags of `mount(2)`.
pub(crate) type Flags = u64;

/// The flags of one mount that have their counterpart among the attributes of `mount_setattr(2)`, but for
/// those about access times.
const PLAIN: [(Flags, u64); 5] = [
    (MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
    (MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (MS_NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// The flags about access times, of which but one can hold.
const ATIME_KINDS: Flags = MS_NOATIME | MS_RELATIME | MS_STRICTATIME;
/// All flags about access times.
pub(crate) const ATIME: Flags = ATIME_KINDS | MS_NODIRATIME;
/// What a mount of another user namespace keeps.
pub(crate) const LOCKED: Flags = MS_RDONLY | MS_NODEV | MS_NOEXEC | MS_NOSUID | ATIME;

/// Every option that is not for a file system, as runc announces them.
pub(crate) const KNOWN: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// The options of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// What to set, as flags of `mount(2)`.
    pub(crate) flags: Flags,
    /// What is explicitly not to be set.
    pub(crate) cleared: Flags,
    /// The changes of propagation, in order.
    pub(crate) propagation: Vec<Flags>,
    /// The attributes to set and to clear for this mount and all below it.
    pub(crate) recursive: Option<(u64, u64)>,
    /// Copy what is at the destination into the new file system.
    pub(crate) copy_up: bool,
    /// Map ids; with `Some(true)` of all mounts below too.
    pub(crate) map_ids: Option<bool>,
    /// What is for the file system.
    pub(crate) data: Vec<String>,
}

impl Options {
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        if let Some((clears, flag)) = flag(option) {
            if clears {
                self.flags &= !flag;
                self.cleared |= flag;
            } else {
                self.flags |= flag;
                self.cleared &= !flag;
            }
        } else if let Some(propagation) = propagation(option) {
            self.propagation.push(propagation);
        } else if let Some((clears, attribute)) = recursive(option) {
            self.add_recursive(clears, attribute);
        } else {
            match option {
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.map_ids = Some(false),
                "ridmap" => self.map_ids = Some(true),
                // Every mount has them.
                "defaults" => {}
                data => self.data.push(data.to_owned()),
            }
        }
    }

    fn add_recursive(&mut self, clears: bool, attribute: u64) {
        let (set, clear) = self.recursive.get_or_insert_default();
        if clears {
            *clear |= attribute;
            *set &= !attribute;
        } else {
            *set |= attribute;
            *clear &= !attribute;
        }
        // The kernel takes them as one value, which is cleared before it is set.
        if attribute & libc::MOUNT_ATTR__ATIME == attribute {
            if !clears {
                *set &= !(libc::MOUNT_ATTR__ATIME & !attribute);
            }
            *clear |= libc::MOUNT_ATTR__ATIME;
        }
    }

    pub(crate) fn has(&self, flag: Flags) -> bool {
        self.flags & flag == flag
    }

    /// The attributes of a new mount of a file system (`do_mount` in `fs/namespace.c`).
    pub(crate) fn attributes(&self) -> u64 {
        plain(self.flags) | access_times(self.flags)
    }

    /// Whether there is something for a file system, which a bind mount has no way to tell. POSIX ACLs
    /// were a flag once, and do no harm.
    pub(crate) fn has_data(&self) -> bool {
        let mut data = self.data.iter().map(String::as_str);
        data.any(|option| !matches!(option, "acl" | "noacl"))
    }

    /// The attributes to set and to clear for a bind mount: it has what the options say and nothing
    /// else, but for access times, which stay unless the options mention them. None if the options say
    /// nothing, unless what is mounted there already is to be changed (`remount`).
    pub(crate) fn change_of_bind(&self) -> Option<(u64, u64)> {
        if self.flags & !(MS_BIND | MS_REC) == 0 && self.cleared == 0 {
            return None;
        }
        Some(change(self.flags))
    }
}

/// The attributes to set and to clear for a mount to have just these flags.
pub(crate) fn change(flags: Flags) -> (u64, u64) {
    let all = PLAIN.iter().fold(0, |all, (_, attribute)| all | attribute);
    let (mut set, mut clear) = (plain(flags), all & !plain(flags));
    if flags & ATIME != 0 {
        set |= access_times(flags);
        clear |= libc::MOUNT_ATTR__ATIME;
        if flags & MS_NODIRATIME == 0 {
            clear |= libc::MOUNT_ATTR_NODIRATIME;
        }
    }
    (set, clear)
}

fn plain(flags: Flags) -> u64 {
    let set = PLAIN.iter().filter(|(flag, _)| flags & flag != 0);
    set.fold(0, |all, (_, attribute)| all | attribute)
}

/// `relatime` is what a mount has that asks for nothing.
fn access_times(flags: Flags) -> u64 {
    let kind = if flags & MS_STRICTATIME != 0 {
        libc::MOUNT_ATTR_STRICTATIME
    } else if flags & MS_NOATIME != 0 {
        libc::MOUNT_ATTR_NOATIME
    } else {
        libc::MOUNT_ATTR_RELATIME
    };
    let directories = if flags & MS_NODIRATIME != 0 {
        libc::MOUNT_ATTR_NODIRATIME
    } else {
        0
    };
    kind | directories
}

/// The flags of a mount as `statfs(2)` has them (`calculate_f_flags` in `fs/statfs.c`).
pub(crate) fn of_statfs(found: u64) -> Flags {
    /// From `linux/statfs.h`.
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    let known = [
        (libc::ST_RDONLY, MS_RDONLY),
        (libc::ST_NOSUID, MS_NOSUID),
        (libc::ST_NODEV, MS_NODEV),
        (libc::ST_NOEXEC, MS_NOEXEC),
        (libc::ST_NOATIME, MS_NOATIME),
        (libc::ST_NODIRATIME, MS_NODIRATIME),
        (libc::ST_RELATIME, MS_RELATIME),
        (ST_NOSYMFOLLOW, MS_NOSYMFOLLOW),
    ];
    let set = known.iter().filter(|(flag, _)| found & flag != 0);
    let flags = set.fold(0, |flags, (_, flag)| flags | flag);
    if flags & ATIME_KINDS == 0 {
        flags | MS_STRICTATIME
    } else {
        flags
    }
}

/// Whether the option clears a flag, and which flag.
fn flag(option: &str) -> Option<(bool, Flags)> {
    Some(match option {
        "async" => (true, MS_SYNCHRONOUS),
        "atime" => (true, MS_NOATIME),
        "bind" => (false, MS_BIND),
        "dev" => (true, MS_NODEV),
        "diratime" => (true, MS_NODIRATIME),
        "dirsync" => (false, MS_DIRSYNC),
        "exec" => (true, MS_NOEXEC),
        "iversion" => (false, MS_I_VERSION),
        "lazytime" => (false, MS_LAZYTIME),
        "loud" => (true, MS_SILENT),
        "mand" => (false, MS_MANDLOCK),
        "noatime" => (false, MS_NOATIME),
        "nodev" => (false, MS_NODEV),
        "nodiratime" => (false, MS_NODIRATIME),
        "noexec" => (false, MS_NOEXEC),
        "noiversion" => (true, MS_I_VERSION),
        "nolazytime" => (true, MS_LAZYTIME),
        "nomand" => (true, MS_MANDLOCK),
        "norelatime" => (true, MS_RELATIME),
        "nostrictatime" => (true, MS_STRICTATIME),
        "nosuid" => (false, MS_NOSUID),
        "nosymfollow" => (false, MS_NOSYMFOLLOW),
        "rbind" => (false, MS_BIND | MS_REC),
        "relatime" => (false, MS_RELATIME),
        "remount" => (false, MS_REMOUNT),
        "ro" => (false, MS_RDONLY),
        "rw" => (true, MS_RDONLY),
        "silent" => (false, MS_SILENT),
        "strictatime" => (false, MS_STRICTATIME),
        "suid" => (true, MS_NOSUID),
        "sync" => (false, MS_SYNCHRONOUS),
        "symfollow" => (true, MS_NOSYMFOLLOW),
        _ => return None,
    })
}

/// The propagation that an option asks for, with `MS_REC` if for all mounts below too.
pub(crate) fn propagation(option: &str) -> Option<Flags> {
    Some(match option {
        "private" => MS_PRIVATE,
        "rprivate" => MS_PRIVATE | MS_REC,
        "slave" => MS_SLAVE,
        "rslave" => MS_SLAVE | MS_REC,
        "shared" => MS_SHARED,
        "rshared" => MS_SHARED | MS_REC,
        "unbindable" => MS_UNBINDABLE,
        "runbindable" => MS_UNBINDABLE | MS_REC,
        _ => return None,
    })
}

/// Whether the option clears an attribute for all mounts below too, and which one.
fn recursive(option: &str) -> Option<(bool, u64)> {
    Some(match option {
        "rro" => (false, libc::MOUNT_ATTR_RDONLY),
        "rrw" => (true, libc::MOUNT_ATTR_RDONLY),
        "rnosuid" => (false, libc::MOUNT_ATTR_NOSUID),
        "rsuid" => (true, libc::MOUNT_ATTR_NOSUID),
        "rnodev" => (false, libc::MOUNT_ATTR_NODEV),
        "rdev" => (true, libc::MOUNT_ATTR_NODEV),
        "rnoexec" => (false, libc::MOUNT_ATTR_NOEXEC),
        "rexec" => (true, libc::MOUNT_ATTR_NOEXEC),
        "rnodiratime" => (false, libc::MOUNT_ATTR_NODIRATIME),
        "rdiratime" => (true, libc::MOUNT_ATTR_NODIRATIME),
        "rrelatime" => (false, libc::MOUNT_ATTR_RELATIME),
        "rnorelatime" => (true, libc::MOUNT_ATTR_RELATIME),
        "rnoatime" => (false, libc::MOUNT_ATTR_NOATIME),
        "ratime" => (true, libc::MOUNT_ATTR_NOATIME),
        "rstrictatime" => (false, libc::MOUNT_ATTR_STRICTATIME),
        "rnostrictatime" => (true, libc::MOUNT_ATTR_STRICTATIME),
        "rnosymfollow" => (false, libc::MOUNT_ATTR_NOSYMFOLLOW),
        "rsymfollow" => (true, libc::MOUNT_ATTR_NOSYMFOLLOW),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Options {
        Options::parse(options.split(','))
    }

    #[test]
    fn a_known_option_is_not_for_a_file_system() {
        for option in KNOWN {
            assert!(Options::parse([*option]).data.is_empty(), "{option}");
        }
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn the_last_of_two_options_holds() {
        let options = parse("ro,nosuid,rw,dev,nodev");
        assert_eq!(options.flags, MS_NOSUID | MS_NODEV);
        assert_eq!(options.cleared, MS_RDONLY);
    }

    #[test]
    fn what_no_table_knows_is_for_the_file_system() {
        let options = parse("size=1k,nosuid,defaults,rprivate,shared,tmpcopyup,ridmap,acl");
        assert_eq!(options.data, ["size=1k", "acl"]);
        assert_eq!(options.propagation, [MS_PRIVATE | MS_REC, MS_SHARED]);
        assert!(options.copy_up);
        assert_eq!(options.map_ids, Some(true));
    }

    #[test]
    fn a_bind_keeps_its_flags_only_if_no_option_is_about_them() {
        assert_eq!(parse("rbind,rprivate").change_of_bind(), None);
        let (set, clear) = parse("rbind,ro").change_of_bind().unwrap();
        assert_eq!(set, libc::MOUNT_ATTR_RDONLY);
        assert_ne!(clear & libc::MOUNT_ATTR_NOSUID, 0);
        assert_eq!(
            clear & (libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_RDONLY),
            0
        );
        let (set, clear) = parse("bind,rw").change_of_bind().unwrap();
        assert_eq!(set, 0);
        assert_ne!(clear & libc::MOUNT_ATTR_RDONLY, 0);
        let (set, clear) = parse("bind,noatime").change_of_bind().unwrap();
        assert_eq!(set, libc::MOUNT_ATTR_NOATIME);
        assert_eq!(clear & libc::MOUNT_ATTR__ATIME, libc::MOUNT_ATTR__ATIME);
        assert_ne!(clear & libc::MOUNT_ATTR_NODIRATIME, 0);
    }

    #[test]
    fn a_new_mount_has_what_mount_would_give_it() {
        assert_eq!(
            parse("nosuid,ro").attributes(),
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY
        );
        let strict = libc::MOUNT_ATTR_STRICTATIME;
        assert_eq!(parse("noatime,strictatime").attributes(), strict);
        let both = libc::MOUNT_ATTR_NODIRATIME | libc::MOUNT_ATTR_NOATIME;
        assert_eq!(parse("noatime,nodiratime").attributes(), both);
    }

    #[test]
    fn access_times_are_one_value_for_all_mounts_below() {
        let all = libc::MOUNT_ATTR__ATIME;
        let recursive = |options: &str| parse(options).recursive.unwrap();
        assert_eq!(recursive("rro"), (libc::MOUNT_ATTR_RDONLY, 0));
        assert_eq!(recursive("rro,rrw"), (0, libc::MOUNT_ATTR_RDONLY));
        assert_eq!(recursive("rrelatime"), (0, all));
        assert_eq!(recursive("rnoatime"), (libc::MOUNT_ATTR_NOATIME, all));
        let strict = libc::MOUNT_ATTR_STRICTATIME;
        assert_eq!(recursive("rnoatime,rstrictatime"), (strict, all));
    }

    #[test]
    fn flags_of_statfs_are_those_of_mount() {
        assert_eq!(of_statfs(libc::ST_RDONLY), MS_RDONLY | MS_STRICTATIME);
        let found = libc::ST_NODEV | libc::ST_RELATIME;
        assert_eq!(of_statfs(found), MS_NODEV | MS_RELATIME);
    }
}
