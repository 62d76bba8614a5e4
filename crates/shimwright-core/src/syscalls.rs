//! The filter of a runner's system calls: what engines need to run a guest, and nothing else.
//!
//! It lies on top of the filter of the container's spec, as the kernel asks both. It is for a guest
//! that has broken out of its engine: such a guest can execute no program, start no process, enter
//! or make no namespace, mount nothing, look into no other process, and reach none of the parts
//! of the kernel that no engine uses.

use std::io;
use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
};
use libc::{c_long, seccomp_data, sock_filter};

use crate::sys;

/// What the kernel calls this architecture (`AUDIT_ARCH_…` of `linux/audit.h`). A program may use
/// the numbers of another, which mean something else.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter of system calls knows the numbers of x86_64 and aarch64 only");

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
    libc::SYS_fcntl,
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
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
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
    libc::SYS_pipe2,
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
    // Sockets. `socket` itself is asked for its family.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
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
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
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
    // The register that a thread finds its own data by.
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Calls that are asked for the lower half of an argument; the kernel looks at no more of these.
const ASKED: &[(c_long, &[Asked])] = &[
    // Of the bits one says that it is a thread.
    (libc::SYS_clone, &[Asked::has(0, libc::CLONE_THREAD)]),
    (
        libc::SYS_socket,
        &[
            Asked::among(0, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]),
            // Not raw, which is a privilege, but one that containers are given by many clients.
            Asked {
                bits: 0xf,
                ..Asked::among(
                    1,
                    &[libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET],
                )
            },
        ],
    ),
    // Typing into a terminal, for whoever reads it after the guest.
    (libc::SYS_ioctl, &[Asked::not_among(1, TYPING)]),
    (libc::SYS_prctl, &[Asked::among(0, OF_A_THREAD)]),
    (libc::SYS_kill, &[Asked::OWN]),
    (libc::SYS_tgkill, &[Asked::OWN]),
    (libc::SYS_rt_sigqueueinfo, &[Asked::OWN]),
    (libc::SYS_rt_tgsigqueueinfo, &[Asked::OWN]),
    (libc::SYS_prlimit64, &[Asked::OWN_OR_ZERO]),
];

const TYPING: &[i32] = &[libc::TIOCSTI as i32, libc::TIOCLINUX as i32];

const OF_A_THREAD: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
];

/// Calls that fail as if there were none: their flags are in memory, where a filter cannot look,
/// and a libc falls back to `clone`.
const ABSENT: &[c_long] = &[libc::SYS_clone3];

/// What an argument has to be.
#[derive(Clone, Copy, Debug)]
struct Asked {
    argument: usize,
    /// Those of its bits that are looked at.
    bits: i32,
    values: &'static [i32],
    /// Whether it has to be one of the values, or none of them.
    among: bool,
    /// The number of this process is one more of the values.
    own: bool,
}

impl Asked {
    const OWN: Self = Self {
        own: true,
        ..Self::among(0, &[])
    };
    const OWN_OR_ZERO: Self = Self {
        own: true,
        ..Self::among(0, &[0])
    };

    const fn among(argument: usize, values: &'static [i32]) -> Self {
        Self {
            argument,
            bits: -1,
            values,
            among: true,
            own: false,
        }
    }

    const fn not_among(argument: usize, values: &'static [i32]) -> Self {
        Self {
            among: false,
            ..Self::among(argument, values)
        }
    }

    const fn has(argument: usize, bit: i32) -> Self {
        Self {
            bits: bit,
            ..Self::not_among(argument, &[0])
        }
    }

    /// Goes on if the argument is right, and refuses the call otherwise.
    fn check(self, pid: i32) -> Vec<sock_filter> {
        let lower_half = if cfg!(target_endian = "big") { 4 } else { 0 };
        let place = offset_of!(seccomp_data, args) + self.argument * size_of::<u64>() + lower_half;
        let mut values = self.values.to_vec();
        values.extend(self.own.then_some(pid));
        let mut check = vec![load(place), keep_bits(self.bits)];
        for (at, value) in values.iter().enumerate() {
            // Past the other values and what is there for an argument that is none of them.
            check.push(jump(BPF_JEQ, value.cast_unsigned(), values.len() - at, 0));
        }
        // Found: past the refusal. Otherwise: to it.
        if self.among {
            check.push(answer(REFUSE));
        } else {
            check.extend([jump_always(1), answer(REFUSE)]);
        }
        check
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// Lets this process, with all of its threads and for good, make only the system calls that an
/// engine needs.
///
/// A runner does so before [`Engine::run`](crate::Engine::run). A test of an engine that does it
/// too shows whether the engine gets along with these.
///
/// # Errors
///
/// The kernel has no such filters, or an earlier filter forbids to add one.
pub fn restrict_system_calls() -> io::Result<()> {
    // A guest of ours has this already; without it, adding a filter is a privilege.
    rustix::thread::set_no_new_privs(true)?;
    let pid = rustix::process::getpid().as_raw_pid();
    // Without the second flag kernels before 5.16 would also make the process slower, against a
    // guest that reads what its own process knows: there is nothing in it that is not the guest's.
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    sys::filter_system_calls(&program(pid), flags)
}

/// The filter as the kernel's interpreter takes it (`seccomp(2)`).
fn program(pid: i32) -> Vec<sock_filter> {
    let mut program = vec![
        load(offset_of!(seccomp_data, arch)),
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(REFUSE),
        load(offset_of!(seccomp_data, nr)),
    ];
    for &(call, asked) in ASKED {
        let mut checks: Vec<_> = asked.iter().flat_map(|asked| asked.check(pid)).collect();
        checks.push(answer(ALLOW));
        program.push(jump(BPF_JEQ, number(call), 0, checks.len()));
        program.extend(checks);
    }
    program.extend(decide(&segments()));
    program
}

/// The numbers of all calls in order, as segments: where each begins, and what is answered in it.
fn segments() -> Vec<(u32, u32)> {
    let mut calls: Vec<(u32, u32)> = [ALLOWED, OLDER]
        .concat()
        .iter()
        .map(|&call| (number(call), ALLOW))
        .chain(ABSENT.iter().map(|&call| (number(call), NOT_THERE)))
        .collect();
    calls.sort_unstable();
    let mut segments = vec![(0, REFUSE)];
    let mut next = 0;
    let mut begin = |at, verdict| match segments.last_mut() {
        Some(last) if last.1 == verdict => {}
        Some(last) if last.0 == at => last.1 = verdict,
        _ => segments.push((at, verdict)),
    };
    for (call, verdict) in calls {
        if call > next {
            begin(next, REFUSE);
        }
        begin(call, verdict);
        next = call + 1;
    }
    if next <= number(NEWEST) {
        begin(next, REFUSE);
    }
    begin(number(NEWEST) + 1, NOT_THERE);
    segments
}

/// Finds the segment of a number by halves.
fn decide(segments: &[(u32, u32)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = segments {
        return vec![answer(*verdict)];
    }
    let (lower, upper) = segments.split_at(segments.len() / 2);
    let below = decide(lower);
    let mut decision = vec![jump(BPF_JGE, upper[0].0, below.len(), 0)];
    decision.extend(below);
    decision.extend(decide(upper));
    decision
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("the numbers of system calls are small")
}

/// Takes 32 bits of what the kernel says about a call.
fn load(place: usize) -> sock_filter {
    let place = u32::try_from(place).expect("the structure is small");
    instruction(BPF_LD | BPF_W | BPF_ABS, place, 0, 0)
}

/// Skips so many instructions if the comparison holds, and so many if not.
fn jump(comparison: u32, value: u32, holds: usize, otherwise: usize) -> sock_filter {
    let skip = |n: usize| u8::try_from(n).expect("a half of the filter is less than 256 long");
    instruction(
        BPF_JMP | comparison | BPF_K,
        value,
        skip(holds),
        skip(otherwise),
    )
}

fn jump_always(skipped: u32) -> sock_filter {
    instruction(BPF_JMP | BPF_JA, skipped, 0, 0)
}

fn keep_bits(bits: i32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, bits.cast_unsigned(), 0, 0)
}

fn answer(verdict: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, verdict, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = u16::try_from(code).expect("a code has 16 bits");
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: i32 = 4711;

    /// What the kernel's interpreter would answer.
    fn verdict(architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let program = program(PID);
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let skip = |holds: bool| usize::from(if holds { jt } else { jf });
            at += 1;
            match u32::from(code) & !BPF_K {
                0x20 => {
                    let place = usize::try_from(k).unwrap();
                    accumulator = match place {
                        0 => call,
                        4 => architecture,
                        _ => {
                            let bytes = arguments.map(u64::to_ne_bytes).concat();
                            let place = place - 16;
                            u32::from_ne_bytes(bytes[place..place + 4].try_into().unwrap())
                        }
                    }
                }
                0x15 => at += skip(accumulator == k),
                0x35 => at += skip(accumulator >= k),
                0x05 => at += usize::try_from(k).unwrap(),
                0x54 => accumulator &= k,
                0x06 => return k,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn asked(call: c_long, arguments: [u64; 6]) -> u32 {
        verdict(ARCHITECTURE, number(call), arguments)
    }

    #[test]
    fn every_number_has_the_answer_of_the_lists() {
        let allowed: Vec<u32> = [ALLOWED, OLDER].concat().into_iter().map(number).collect();
        let conditional: Vec<u32> = ASKED.iter().map(|(call, _)| number(*call)).collect();
        for call in (0..1000).filter(|call| !conditional.contains(call)) {
            let expected = if allowed.contains(&call) {
                ALLOW
            } else if call == number(libc::SYS_clone3) || call > number(NEWEST) {
                NOT_THERE
            } else {
                REFUSE
            };
            assert_eq!(verdict(ARCHITECTURE, call, [0; 6]), expected, "{call}");
        }
        let mut once = allowed.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), allowed.len(), "a call is listed twice");
        assert!(!allowed.iter().any(|call| conditional.contains(call)));
    }

    #[test]
    fn numbers_of_another_architecture_mean_nothing() {
        let i386 = 0x4000_0003;
        assert_eq!(verdict(i386, number(libc::SYS_read), [0; 6]), REFUSE);
        // x32 has the same architecture and one bit more.
        let x32 = 0x4000_0000 + number(libc::SYS_read);
        assert_eq!(verdict(ARCHITECTURE, x32, [0; 6]), NOT_THERE);
    }

    #[test]
    fn arguments_decide_where_a_call_can_do_both() {
        let first = |call, argument: u64| asked(call, [argument, 0, 0, 0, 0, 0]);
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        assert_eq!(first(libc::SYS_clone, thread), ALLOW);
        assert_eq!(first(libc::SYS_clone, libc::SIGCHLD as u64), REFUSE);
        let socket = |family: i32, kind: i32| {
            asked(libc::SYS_socket, [family as u64, kind as u64, 0, 0, 0, 0])
        };
        let closing = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        assert_eq!(socket(libc::AF_INET6, libc::SOCK_STREAM | closing), ALLOW);
        assert_eq!(socket(libc::AF_INET, libc::SOCK_RAW | closing), REFUSE);
        assert_eq!(socket(libc::AF_PACKET, libc::SOCK_DGRAM), REFUSE);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_DGRAM), REFUSE);
        assert_eq!(first(libc::SYS_prctl, libc::PR_SET_NAME as u64), ALLOW);
        assert_eq!(first(libc::SYS_prctl, libc::PR_SET_MM as u64), REFUSE);
        for call in [libc::SYS_kill, libc::SYS_tgkill] {
            assert_eq!(first(call, PID as u64), ALLOW);
            // A group of processes, all of them, another one.
            for other in [0, u64::MAX, PID as u64 + 1] {
                assert_eq!(first(call, other), REFUSE);
            }
        }
        assert_eq!(first(libc::SYS_prlimit64, 0), ALLOW);
        assert_eq!(first(libc::SYS_prlimit64, 1), REFUSE);
        let second = |argument: u64| asked(libc::SYS_ioctl, [0, argument, 0, 0, 0, 0]);
        assert_eq!(second(libc::FIONBIO), ALLOW);
        assert_eq!(second(libc::TIOCSTI), REFUSE);
        // The kernel looks at 32 bits of it only.
        assert_eq!(second(libc::TIOCSTI | 1 << 32), REFUSE);
    }

    #[test]
    fn the_kernel_takes_it_and_refuses_what_is_not_for_engines() {
        use std::process::Command;
        // A filter is a thread's, unless it is told otherwise.
        let filtered = || {
            rustix::thread::set_no_new_privs(true).unwrap();
            sys::filter_system_calls(&program(rustix::process::getpid().as_raw_pid()), 0).unwrap();
            let refused = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            refused(sys::exec_path(c"/bin/true", &[], &[]));
            refused(sys::unshare(rustix::thread::UnshareFlags::NEWUSER).unwrap_err());
            refused(sys::set_groups(&[]).unwrap_err());
            refused(rustix::process::chroot("/").unwrap_err().into());
            refused(
                rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty())
                    .unwrap_err()
                    .into(),
            );
            let parent = rustix::process::getppid().unwrap();
            refused(
                rustix::process::test_kill_process(parent)
                    .unwrap_err()
                    .into(),
            );
            refused(
                rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty())
                    .unwrap_err()
                    .into(),
            );
            refused(Command::new("/bin/true").spawn().unwrap_err());
            // What a guest does is as it was.
            let thread = std::thread::spawn(|| std::net::TcpListener::bind("127.0.0.1:0").is_ok());
            assert!(thread.join().unwrap());
            assert!(std::fs::read_dir("/").unwrap().count() > 0);
        };
        std::thread::spawn(filtered).join().unwrap();
        // The test's own thread is not filtered.
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
}
