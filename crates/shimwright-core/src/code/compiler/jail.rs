//! What a compiler and a fetcher give up before they read a byte of an image: their user, the file
//! systems, the network, and almost all system calls.

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long,
    seccomp_data, sock_filter,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::sys;
use crate::sys::landlock;

/// The user and group called nobody.
const NOBODY: u32 = 65534;

/// What a process is held to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Jail {
    /// A user that no other process is.
    pub(crate) uid: u32,
    /// How many bytes of memory of its own it may have, by `RLIMIT_DATA`.
    pub(crate) memory: u64,
    /// How many seconds of processor time.
    pub(crate) seconds: u64,
    /// How many bytes it may write to a file.
    pub(crate) file: u64,
}

/// What a jail leaves besides memory, threads and open descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left<'a> {
    Nothing,
    /// Files below an empty directory in memory.
    Scratch(BorrowedFd<'a>),
    /// Waiting for a connected socket.
    Socket,
}

/// Address space is no memory: each thread's heap reserves some.
const ADDRESS_SPACE: u64 = 6 << 30;

impl Jail {
    /// Gives up everything but the open descriptors and what is `left`. The working directory is
    /// what becomes the root; the process has one thread.
    ///
    /// # Errors
    ///
    /// Something could not be given up.
    pub(crate) fn enter(&self, left: Left<'_>) -> io::Result<()> {
        let namespaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        sys::process::unshare(namespaces)?;
        rustix::process::chroot(".")?;
        for (resource, limit) in [
            (Resource::As, self.memory.saturating_add(ADDRESS_SPACE)),
            (Resource::Data, self.memory),
            (Resource::Fsize, self.file),
            (Resource::Cpu, self.seconds),
            (Resource::Nofile, 32),
            (Resource::Nproc, 512),
            (Resource::Memlock, 0),
            (Resource::Core, 0),
        ] {
            let limit = Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            };
            rustix::process::setrlimit(resource, limit)?;
        }
        match sys::process::become_user(self.uid) {
            // A user namespace may have few.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                sys::process::become_user(NOBODY)?
            }
            other => other?,
        }
        die_with_the_launcher()?;
        rustix::thread::set_no_new_privs(true)?;
        let capabilities = rustix::thread::capabilities(None)?;
        if !capabilities.effective.is_empty() || !capabilities.permitted.is_empty() {
            return Err(io::Error::other("the process still has capabilities"));
        }
        let scratch;
        let kept = match left {
            Left::Scratch(directory) => {
                scratch = [(directory, SCRATCH)];
                &scratch[..]
            }
            Left::Nothing | Left::Socket => &[],
        };
        landlock::restrict(&landlock::Ruleset {
            kept,
            ..landlock::Ruleset::NOTHING
        })?;
        sys::process::filter_system_calls(&filter(left), 0)
    }
}

/// What a compiler may do with the files it makes.
const SCRATCH: u64 = landlock::files::READ_FILE
    | landlock::files::WRITE_FILE
    | landlock::files::READ_DIR
    | landlock::files::MAKE_DIR
    | landlock::files::MAKE_REG
    | landlock::files::REMOVE_DIR
    | landlock::files::REMOVE_FILE
    | landlock::files::TRUNCATE;

/// Has the kernel kill this process when its launcher ends. The change of user has cleared what
/// was set before (`PR_SET_PDEATHSIG` of `prctl(2)`); a launcher that ended in between no longer
/// reads standard error.
fn die_with_the_launcher() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let stderr = rustix::stdio::stderr();
    let mut pipe = [PollFd::from_borrowed_fd(stderr, PollFlags::empty())];
    poll(&mut pipe, Some(&Timespec::default()))?;
    if pipe[0].revents().contains(PollFlags::ERR) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls with greater numbers are newer than this list, and fail as on a kernel without them.
const NEWEST: c_long = 452;

/// What both make with any arguments. There is no call here that opens, executes or maps by name,
/// makes a process or a socket, or is about another process: the namespace of pids has no other.
const ALLOWED: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
];

/// What a compiler with files of its own makes besides.
const WITH_FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_umask,
    libc::SYS_msync,
    libc::SYS_fsync,
    libc::SYS_flock,
];
#[cfg(target_arch = "x86_64")]
const WITH_FILES_OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
];
#[cfg(not(target_arch = "x86_64"))]
const WITH_FILES_OLDER: &[c_long] = &[];

/// What an async runtime makes with a socket that it has.
const WITH_SOCKET: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
];
#[cfg(target_arch = "x86_64")]
const WITH_SOCKET_OLDER: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const WITH_SOCKET_OLDER: &[c_long] = &[libc::SYS_ppoll];

/// The only purposes of `prctl`: the names of threads and of memory.
const NAMES: [i32; 2] = [libc::PR_SET_NAME, libc::PR_SET_VMA];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// The filter as the kernel's interpreter takes it (`seccomp(2)`).
fn filter(left: Left<'_>) -> Vec<sock_filter> {
    let more: [&[c_long]; 2] = match left {
        Left::Nothing => [&[], &[]],
        Left::Scratch(_) => [WITH_FILES, WITH_FILES_OLDER],
        Left::Socket => [WITH_SOCKET, WITH_SOCKET_OLDER],
    };
    let lower_half = if cfg!(target_endian = "big") { 4 } else { 0 };
    let first = offset_of!(seccomp_data, args) + lower_half;
    let mut program = vec![
        load(offset_of!(seccomp_data, arch)),
        skip(BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(REFUSE),
        load(offset_of!(seccomp_data, nr)),
        // The numbers of x32 are among those that are too great.
        skip(BPF_JGT, number(NEWEST), 0, 1),
        answer(NOT_THERE),
        // Its flags are in memory, where a filter cannot look; a libc falls back to `clone`.
        skip(BPF_JEQ, number(libc::SYS_clone3), 0, 1),
        answer(NOT_THERE),
        // A thread, not a process.
        skip(BPF_JEQ, number(libc::SYS_clone), 0, 5),
        load(first),
        instruction(
            BPF_ALU | BPF_AND | BPF_K,
            libc::CLONE_THREAD.cast_unsigned(),
            0,
            0,
        ),
        skip(BPF_JEQ, 0, 0, 1),
        answer(REFUSE),
        answer(ALLOW),
        skip(BPF_JEQ, number(libc::SYS_prctl), 0, 5),
        load(first),
        skip(BPF_JEQ, NAMES[0].cast_unsigned(), 2, 0),
        skip(BPF_JEQ, NAMES[1].cast_unsigned(), 1, 0),
        answer(REFUSE),
        answer(ALLOW),
    ];
    let allowed = [ALLOWED, more[0], more[1]];
    for &call in allowed.into_iter().flatten() {
        program.extend([skip(BPF_JEQ, number(call), 0, 1), answer(ALLOW)]);
    }
    program.push(answer(REFUSE));
    program
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("the numbers of system calls are small")
}

/// Takes 32 bits of what the kernel says about a call.
fn load(place: usize) -> sock_filter {
    let place = u32::try_from(place).expect("the structure is small");
    instruction(BPF_LD | BPF_W | BPF_ABS, place, 0, 0)
}

fn skip(comparison: u32, value: u32, holds: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | comparison | BPF_K, value, holds, otherwise)
}

fn answer(verdict: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, verdict, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = u16::try_from(code).expect("a code has 16 bits");
    sock_filter { code, jt, jf, k }
}
