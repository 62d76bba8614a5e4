//! `bpf(2)`, as far as a program that decides about the devices of a cgroup needs it.
//!
//! The layouts are those of `union bpf_attr` in `linux/bpf.h`. The kernel takes a shorter one than
//! its own, and a longer one if what it does not know is zero.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Resource, Rlimit};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The most programs that can be attached to a cgroup (`BPF_CGROUP_MAX_PROGS`).
const MOST_PROGRAMS: usize = 64;

/// How often loading is tried again after a signal has interrupted the verifier.
const LOADS: usize = 30;

/// The name of each program that is loaded here: `bpftool` shows it, and it tells our programs from
/// those of systemd and others. At most 15 letters, digits, `_` and `.`.
const NAME: [u8; 16] = *b"shimwright_dev\0\0";

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

impl Instruction {
    /// An instruction on two registers.
    pub(crate) fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            from << 4 | to
        } else {
            to << 4 | from
        };
        Self {
            code,
            registers,
            offset,
            immediate,
        }
    }

    /// The registers: the one that is written and the one that is read.
    #[cfg(test)]
    pub(crate) fn registers(self) -> (usize, usize) {
        let (high, low) = (self.registers >> 4, self.registers & 15);
        if cfg!(target_endian = "little") {
            (low.into(), high.into())
        } else {
            (high.into(), low.into())
        }
    }
}

#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    cgroup: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// With all that kernels know today: from 6.17 on some write the last field whatever the length is
/// said to be (mended by commit 21c4b99b27f3 in 7.2).
#[repr(C)]
struct Query {
    cgroup: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    more: [u64; 4],
}

#[repr(C)]
struct GetInfo {
    program: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    until_name: [u64; 8],
    name: [u8; 16],
}

/// Makes a call.
///
/// # Safety
///
/// `attributes` is laid out as the command has it, and each address in it is valid for what the
/// command does there.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the address and the length are those of `attributes`; the rest is the caller's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

fn number(descriptor: impl AsFd) -> u32 {
    descriptor.as_fd().as_raw_fd().unsigned_abs()
}

/// Loads a program that decides about devices (`BPF_PROG_TYPE_CGROUP_DEVICE`).
pub(crate) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    match load(program) {
        // Before Linux 5.11 its memory counts as locked, and the limit is small.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let before = rustix::process::getrlimit(Resource::Memlock);
            let none = Rlimit {
                current: None,
                maximum: None,
            };
            if rustix::process::setrlimit(Resource::Memlock, none).is_err() {
                return Err(error);
            }
            let loaded = load(program);
            // What is forked from here on inherits it.
            rustix::process::setrlimit(Resource::Memlock, before)?;
            loaded
        }
        loaded => loaded,
    }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    // It calls nothing that asks for a license.
    const LICENSE: &CStr = c"Apache-2.0";
    let mut attributes = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: address(program.as_ptr()),
        license: address(LICENSE.as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: NAME,
    };
    let mut loads = 1;
    loop {
        // SAFETY: the kernel reads `count` instructions and a string, which outlive the call, and
        // writes nothing, as there is no log.
        match unsafe { bpf(BPF_PROG_LOAD, &mut attributes) } {
            // SAFETY: the kernel made this descriptor, which nothing else owns. It is closed on
            // `exec`, as all of `bpf(2)` are.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && loads < LOADS => loads += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Attaches a program to a cgroup besides those that are there: each of them has to allow what a
/// process of the cgroup or below does. The cgroup keeps it until it is removed.
pub(crate) fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = Attach {
        cgroup: number(cgroup),
        program: number(program),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes hold no address.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Detaches one of the programs of a cgroup.
pub(crate) fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes = Attach {
        cgroup: number(cgroup),
        program: number(program),
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    // SAFETY: the attributes hold no address.
    unsafe { bpf(BPF_PROG_DETACH, &mut attributes) }.map(drop)
}

/// The programs of a cgroup itself that were loaded here.
pub(crate) fn device_programs(cgroup: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut attributes = Query {
        cgroup: number(cgroup),
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: address(ids.as_mut_ptr()),
        count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        padding: 0,
        more: [0; 4],
    };
    // SAFETY: the kernel writes at most `count` numbers to `ids`, which outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).map_err(io::Error::other)?;
    let mut found = Vec::new();
    for &id in ids.iter().take(count) {
        let program = match program(id) {
            Ok(program) => program,
            // A security module may guard a program of systemd's, and one may have just gone.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EACCES | libc::EPERM | libc::ENOENT)
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        if name(&program)? == NAME {
            found.push(program);
        }
    }
    Ok(found)
}

fn program(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the attribute is a number.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut [id]) }?;
    // SAFETY: the kernel made this descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn name(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut info = Info::default();
    let mut attributes = GetInfo {
        program: number(program),
        length: u32::try_from(size_of::<Info>()).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    // SAFETY: the kernel reads and writes at most `length` bytes of `info`, of which each value is
    // valid; the addresses in it that it would write to are null with a length of zero.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.name)
}
