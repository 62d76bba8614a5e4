//! The system-call filter of a runner: it allows what engines need to run a guest.
//!
//! It applies in addition to the seccomp filter of the container's spec. It restricts a guest that
//! has broken out of its engine: such a guest cannot execute a program, start a process, enter or
//! create a namespace, mount, access another process, or reach parts of the kernel that no engine
//! uses.

mod arguments;
mod filter;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_long, sock_filter};

use crate::sys;
use arguments::*;
use filter::{Asked, NOT_THERE, REFUSE, allow, answer, filter, number, question, segments};

/// The same number on every architecture, and not in every version of `libc`.
const FCHMODAT2: c_long = 452;

/// Calls with greater numbers are newer than this list. They fail as on a kernel that has none of
/// them, so that a libc which tries one takes the older way.
const NEWEST: c_long = FCHMODAT2;

/// Calls that an engine may make with any arguments.
const ALLOWED: &[c_long] = &[
    // Files, as WASI has them.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_renameat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_memfd_create,
    // Waiting and telling the time.
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_restart_syscall,
    // Sockets. Making and setting up one is asked for more.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // Memory: an engine maps what it compiles or loads to be executed.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads. `clone` itself is asked whether it makes one.
    libc::SYS_futex_waitv,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals, which are sent to this process only.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // What a process asks about itself.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_capget,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
];

/// Older forms of some of these, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_getdents,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
    libc::SYS_getpgrp,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Calls that are asked for their arguments. One of the alternatives has to hold, with all that it
/// asks.
const ASKED: &[(c_long, &[&[Asked]])] = &[
    // A thread, with what threads have in common and nothing of its own (`pthread_create` of glibc
    // and musl).
    (
        libc::SYS_clone,
        &[&[
            Asked::has(0, libc::CLONE_THREAD),
            Asked::only(0, OF_A_NEW_THREAD),
        ]],
    ),
    // No module is loaded for a protocol that nobody needs, and nothing is raw, which is a privilege,
    // but one that containers are given by many clients.
    (
        libc::SYS_socket,
        &[&[
            Asked::among(0, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]),
            Asked::of(1, SOCKET_TYPE, &[libc::SOCK_STREAM, libc::SOCK_DGRAM]),
            Asked::among(2, &[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP]),
        ]],
    ),
    (
        libc::SYS_socketpair,
        &[&[
            Asked::among(0, &[libc::AF_UNIX]),
            Asked::of(1, SOCKET_TYPE, &[libc::SOCK_STREAM, libc::SOCK_DGRAM]),
            Asked::among(2, &[0]),
        ]],
    ),
    // Not programs that the kernel runs for each packet, other protocols on top, or tables of a
    // firewall.
    (
        libc::SYS_setsockopt,
        &[
            &[
                Asked::among(1, &[libc::SOL_SOCKET]),
                Asked::among(2, OF_A_SOCKET),
            ],
            &[
                Asked::among(1, &[libc::IPPROTO_TCP]),
                Asked::among(2, OF_TCP),
            ],
            &[Asked::among(1, &[libc::IPPROTO_IP]), Asked::among(2, OF_IP)],
            &[
                Asked::among(1, &[libc::IPPROTO_IPV6]),
                Asked::among(2, OF_IPV6),
            ],
        ],
    ),
    // Not the owner of a file, whom the kernel sends any signal when something happens to it, with
    // nobody asking whether he may be sent one; nor leases and notices.
    (libc::SYS_fcntl, &[&[Asked::among(1, OF_A_FILE)]]),
    // Not devices, and not typing into a terminal for whoever reads it after the guest.
    (libc::SYS_ioctl, &[&[Asked::among(1, OF_STREAMS)]]),
    (libc::SYS_prctl, &[&[Asked::among(0, OF_A_THREAD)]]),
    // Without those that lend priorities.
    (
        libc::SYS_futex,
        &[&[Asked::of(1, libc::FUTEX_CMD_MASK, OF_A_FUTEX)]],
    ),
    // No device file, not even the one that hides others in an overlay (`RENAME_WHITEOUT`).
    (libc::SYS_renameat2, &[&[Asked::only(4, REPLACING)]]),
    (
        libc::SYS_linkat,
        &[&[Asked::only(4, libc::AT_SYMLINK_FOLLOW)]],
    ),
    // No queue of the kernel's own notices (`O_NOTIFICATION_PIPE`).
    (
        libc::SYS_pipe2,
        &[&[Asked::only(
            1,
            libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_DIRECT,
        )]],
    ),
    (libc::SYS_kill, &[&[Asked::OWN]]),
    (libc::SYS_tgkill, &[&[Asked::OWN]]),
    (libc::SYS_rt_sigqueueinfo, &[&[Asked::OWN]]),
    (libc::SYS_rt_tgsigqueueinfo, &[&[Asked::OWN]]),
    (libc::SYS_prlimit64, &[&[Asked::OWN_OR_ZERO]]),
    (libc::SYS_sched_setaffinity, &[&[Asked::OWN_OR_ZERO]]),
    // One more filter, which can only forbid more: see `forbid_new_code`.
    (
        libc::SYS_seccomp,
        &[&[
            Asked::among(0, &[libc::SECCOMP_SET_MODE_FILTER as i32]),
            Asked::among(1, &[FILTER_FLAGS as i32]),
        ]],
    ),
    #[cfg(target_arch = "x86_64")]
    // The register that a thread finds its own data by.
    (
        libc::SYS_arch_prctl,
        &[&[Asked::among(0, &[ARCH_SET_FS, ARCH_GET_FS])]],
    ),
];

/// What [`forbid_new_code`] asks.
const ASKED_WITH_CODE: &[(c_long, &[&[Asked]])] = &[
    (libc::SYS_mmap, &[&[Asked::lacks(2, libc::PROT_EXEC)]]),
    (libc::SYS_mprotect, &[&[Asked::lacks(2, libc::PROT_EXEC)]]),
    (
        libc::SYS_pkey_mprotect,
        &[&[Asked::lacks(2, libc::PROT_EXEC)]],
    ),
    // This was the last filter.
    (libc::SYS_seccomp, &[]),
];

/// Calls that fail as if there were none: their flags are in memory, where a filter cannot look,
/// and a libc falls back to `clone`.
const ABSENT: &[c_long] = &[libc::SYS_clone3];

/// What every filter is added with: it is for all threads.
///
/// Without the second flag kernels before 5.16 would also make the process slower, against a guest
/// that reads what its own process knows: there is nothing in it that is not the guest's.
const FILTER_FLAGS: libc::c_ulong =
    libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;

/// Whether this process runs a guest, and only that.
static RESTRICTED: AtomicBool = AtomicBool::new(false);

/// Restricts this process permanently, in all of its threads, to the system calls that engines need.
///
/// A runner calls it before [`Engine::run`](crate::Engine::run).
///
/// # Errors
///
/// The kernel has no such filters, or an earlier filter forbids adding one.
pub(crate) fn restrict_system_calls() -> io::Result<()> {
    RESTRICTED.store(true, Ordering::Relaxed);
    // A guest of ours has this already; without it, adding a filter is a privilege.
    rustix::thread::set_no_new_privs(true)?;
    let pid = rustix::process::getpid().as_raw_pid();
    sys::process::filter_system_calls(&program(pid), FILTER_FLAGS)
}

/// Forbids new executable memory in this process, permanently and in all of its threads.
///
/// Call it in [`Engine::run`](crate::Engine::run), after the guest's code is loaded or compiled and
/// before the guest's first instruction. A guest that breaks out can then only use code that is
/// already mapped. Do not call it in an engine that generates code while its guest runs.
///
/// The kernel then refuses every executable mapping, of files too, and every change that makes memory
/// executable. Kernels since 6.3 are told so a second time (`PR_SET_MDWE` of `prctl(2)`).
///
/// It does nothing in a process that is not a runner: that may be a test that runs several guests.
///
/// # Errors
///
/// The kernel has no such filters, or an earlier filter forbids adding one.
pub fn forbid_new_code() -> io::Result<()> {
    if !RESTRICTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // Behind the first filter it can only be asked for.
    if !rustix::thread::no_new_privs()? {
        rustix::thread::set_no_new_privs(true)?;
    }
    sys::memory::deny_write_execute();
    let pid = rustix::process::getpid().as_raw_pid();
    let verdicts = ASKED_WITH_CODE
        .iter()
        .map(|&(call, asked)| (number(call), question(asked, pid)));
    sys::process::filter_system_calls(&filter(&segments(verdicts, allow(), None)), FILTER_FLAGS)
}

/// The filter of [`restrict_system_calls`].
fn program(pid: i32) -> Vec<sock_filter> {
    let allowed = [ALLOWED, OLDER].concat();
    let verdicts = allowed
        .iter()
        .map(|&call| (number(call), allow()))
        .chain(
            ABSENT
                .iter()
                .map(|&call| (number(call), vec![answer(NOT_THERE)])),
        )
        .chain(
            ASKED
                .iter()
                .map(|&(call, asked)| (number(call), question(asked, pid))),
        );
    let beyond = (number(NEWEST) + 1, vec![answer(NOT_THERE)]);
    filter(&segments(verdicts, vec![answer(REFUSE)], Some(beyond)))
}

#[cfg(test)]
mod tests;
