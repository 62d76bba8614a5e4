//! Ids of mounts, which the kernel takes from a user namespace.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use oci_spec::runtime::LinuxIdMapping;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::sys;
use crate::sys::process::Forked;

/// A range of ids: the first one as a container has it, the first one of the node, and how many.
pub(crate) type Range = (u32, u32, u32);

/// The ranges of a spec.
pub(crate) fn ranges(mappings: &[LinuxIdMapping]) -> Vec<Range> {
    let range =
        |mapping: &LinuxIdMapping| (mapping.container_id(), mapping.host_id(), mapping.size());
    mappings.iter().map(range).collect()
}

/// A user namespace with these ids, in which there is no process any more.
///
/// Launcher process, which has one thread.
pub(crate) fn namespace(users: &[Range], groups: &[Range]) -> io::Result<File> {
    let (mut ready, is_ready) = io::pipe()?;
    let child = match sys::process::fork()? {
        Forked::Child => {
            drop(ready);
            let made = sys::process::unshare(UnshareFlags::NEWUSER);
            // The other end waits for its end, and then looks at the namespace of this process.
            if made.is_ok() {
                let _ = (&is_ready).write_all(&[1]);
                drop(is_ready);
                loop {
                    rustix::event::pause();
                }
            }
            sys::process::exit_now(1)
        }
        Forked::Parent(pid) => pid,
    };
    drop(is_ready);
    let made = open(child, &mut ready, users, groups);
    if let Some(child) = Pid::from_raw(child) {
        // It is our child, so the pid is still its.
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(child), WaitOptions::empty())
        });
    }
    made
}

fn open(
    child: i32,
    ready: &mut io::PipeReader,
    users: &[Range],
    groups: &[Range],
) -> io::Result<File> {
    let mut byte = [0];
    if rustix::io::retry_on_intr(|| rustix::io::read(ready.as_fd(), &mut byte))? == 0 {
        return Err(io::Error::other("the kernel makes no user namespace"));
    }
    let namespace = File::open(format!("/proc/{child}/ns/user"))?;
    write(child, users, groups)?;
    Ok(namespace)
}

/// Writes the maps of a process that has made a user namespace.
pub(crate) fn write(process: i32, users: &[Range], groups: &[Range]) -> io::Result<()> {
    for (file, ranges) in [("uid_map", users), ("gid_map", groups)] {
        // In one write, as the kernel wants it.
        std::fs::write(format!("/proc/{process}/{file}"), table(ranges))?;
    }
    Ok(())
}

fn table(ranges: &[Range]) -> String {
    let line = |(inside, outside, count): &Range| format!("{inside} {outside} {count}\n");
    ranges.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_range() {
        let ranges = [(0, 1000, 10), (10, 5, 1)];
        assert_eq!(table(&ranges), "0 1000 10\n10 5 1\n");
    }
}
