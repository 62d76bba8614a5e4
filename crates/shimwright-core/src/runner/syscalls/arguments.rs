//! The arguments that engines pass to system calls that can do more.

#[cfg(target_arch = "x86_64")]
pub(super) const ARCH_SET_FS: i32 = 0x1002;
#[cfg(target_arch = "x86_64")]
pub(super) const ARCH_GET_FS: i32 = 0x1003;

/// The part of a socket's type that is not a flag (`SOCK_TYPE_MASK` of the kernel).
pub(super) const SOCKET_TYPE: i32 = 0xf;

pub(super) const OF_A_NEW_THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_SETTID
    | libc::CLONE_CHILD_CLEARTID
    | libc::CLONE_DETACHED;

pub(super) const OF_A_FILE: &[i32] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
    libc::F_GET_SEALS,
    libc::F_ADD_SEALS,
];

pub(super) const OF_STREAMS: &[i32] = &[
    libc::FIONBIO as i32,
    libc::FIONREAD as i32,
    libc::FIOCLEX as i32,
    libc::FIONCLEX as i32,
    libc::TCGETS as i32,
    libc::TCSETS as i32,
    libc::TCSETSW as i32,
    libc::TCSETSF as i32,
    libc::TIOCGWINSZ as i32,
    libc::TIOCGPGRP as i32,
];

pub(super) const OF_A_SOCKET: &[i32] = &[
    libc::SO_REUSEADDR,
    libc::SO_REUSEPORT,
    libc::SO_BROADCAST,
    libc::SO_KEEPALIVE,
    libc::SO_LINGER,
    libc::SO_SNDBUF,
    libc::SO_RCVBUF,
    libc::SO_SNDTIMEO,
    libc::SO_RCVTIMEO,
    libc::SO_DONTROUTE,
    libc::SO_OOBINLINE,
];

pub(super) const OF_TCP: &[i32] = &[
    libc::TCP_NODELAY,
    libc::TCP_KEEPIDLE,
    libc::TCP_KEEPINTVL,
    libc::TCP_KEEPCNT,
    libc::TCP_USER_TIMEOUT,
    libc::TCP_QUICKACK,
    libc::TCP_CORK,
];

pub(super) const OF_IP: &[i32] = &[
    libc::IP_TTL,
    libc::IP_TOS,
    libc::IP_MULTICAST_TTL,
    libc::IP_MULTICAST_LOOP,
    libc::IP_MULTICAST_IF,
    libc::IP_ADD_MEMBERSHIP,
    libc::IP_DROP_MEMBERSHIP,
];

pub(super) const OF_IPV6: &[i32] = &[
    libc::IPV6_V6ONLY,
    libc::IPV6_UNICAST_HOPS,
    libc::IPV6_MULTICAST_HOPS,
    libc::IPV6_MULTICAST_LOOP,
    libc::IPV6_MULTICAST_IF,
    libc::IPV6_ADD_MEMBERSHIP,
    libc::IPV6_DROP_MEMBERSHIP,
];

pub(super) const OF_A_FUTEX: &[i32] = &[
    libc::FUTEX_WAIT,
    libc::FUTEX_WAKE,
    libc::FUTEX_REQUEUE,
    libc::FUTEX_CMP_REQUEUE,
    libc::FUTEX_WAKE_OP,
    libc::FUTEX_WAIT_BITSET,
    libc::FUTEX_WAKE_BITSET,
];

pub(super) const REPLACING: i32 = (libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) as i32;

pub(super) const OF_A_THREAD: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
    // It can only be set, never be taken back.
    libc::PR_SET_MDWE,
    libc::PR_GET_MDWE,
];
