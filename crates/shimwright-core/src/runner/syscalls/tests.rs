//! What the filter of a runner answers, asked of the lists and of the kernel.

use libc::BPF_K;

use super::filter::{ALLOW, ARCHITECTURE};
use super::*;

const PID: i32 = 4711;

/// What the kernel's interpreter would answer.
fn verdict(architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let program = program(PID);
    interpret(&program, architecture, call, arguments)
}

fn interpret(program: &[sock_filter], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
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

/// The answer to a call with this first argument.
fn first(call: c_long, argument: u64) -> u32 {
    asked(call, [argument, 0, 0, 0, 0, 0])
}

/// The answer to a call with these arguments.
fn of(call: c_long, arguments: [i32; 3]) -> u32 {
    let [first, second, third] = arguments.map(|argument| argument as u64);
    asked(call, [first, second, third, 0, 0, 0])
}

#[test]
fn threads_are_made_and_processes_are_not() {
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
    assert_eq!(first(libc::SYS_clone, thread), ALLOW);
    assert_eq!(first(libc::SYS_clone, libc::SIGCHLD as u64), REFUSE);
    let namespace = thread | libc::CLONE_NEWNET as u64;
    assert_eq!(first(libc::SYS_clone, namespace), REFUSE);
}

#[test]
fn sockets_are_those_of_programs_that_serve() {
    let (stream, dgram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let socket = |family, kind| of(libc::SYS_socket, [family, kind, 0]);
    let closing = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    assert_eq!(socket(libc::AF_INET6, stream | closing), ALLOW);
    assert_eq!(socket(libc::AF_INET, libc::SOCK_RAW | closing), REFUSE);
    assert_eq!(socket(libc::AF_PACKET, dgram), REFUSE);
    assert_eq!(socket(libc::AF_NETLINK, dgram), REFUSE);
    assert_eq!(socket(libc::AF_INET, libc::SOCK_SEQPACKET), REFUSE);
    let icmp = [libc::AF_INET, dgram, libc::IPPROTO_ICMP];
    assert_eq!(of(libc::SYS_socket, icmp), REFUSE);
    let mptcp = [libc::AF_INET, stream, libc::IPPROTO_MPTCP];
    assert_eq!(of(libc::SYS_socket, mptcp), REFUSE);
    let pair = |family| of(libc::SYS_socketpair, [family, stream, 0]);
    assert_eq!(pair(libc::AF_UNIX), ALLOW);
    assert_eq!((pair(libc::AF_TIPC), pair(libc::AF_INET)), (REFUSE, REFUSE));
}

#[test]
fn options_of_sockets_are_those_that_programs_set() {
    let option = |level, name| of(libc::SYS_setsockopt, [3, level, name]);
    assert_eq!(option(libc::SOL_SOCKET, libc::SO_REUSEADDR), ALLOW);
    assert_eq!(option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY), ALLOW);
    assert_eq!(option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER), REFUSE);
    assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_ULP), REFUSE);
    // The table of a firewall, and a name that another level has.
    assert_eq!(option(libc::IPPROTO_IP, 64), REFUSE);
    assert_eq!(option(libc::SOL_PACKET, libc::SO_REUSEADDR), REFUSE);
}

#[test]
fn files_have_no_owners_leases_or_notices() {
    let file = |command| of(libc::SYS_fcntl, [3, command, 0]);
    assert_eq!(file(libc::F_SETFL), ALLOW);
    for command in [
        libc::F_SETOWN,
        libc::F_SETLEASE,
        libc::F_NOTIFY,
        // F_SETSIG and F_SETOWN_EX
        10,
        15,
    ] {
        assert_eq!(file(command), REFUSE, "{command}");
    }
    let whiteout = [0, 0, 0, 0, u64::from(libc::RENAME_WHITEOUT), 0];
    assert_eq!(asked(libc::SYS_renameat2, whiteout), REFUSE);
    assert_eq!(asked(libc::SYS_renameat2, [0, 0, 0, 0, 1, 0]), ALLOW);
    assert_eq!(of(libc::SYS_pipe2, [0, libc::O_CLOEXEC, 0]), ALLOW);
    assert_eq!(of(libc::SYS_pipe2, [0, libc::O_EXCL, 0]), REFUSE);
    let second = |argument: u64| asked(libc::SYS_ioctl, [0, argument, 0, 0, 0, 0]);
    assert_eq!(second(libc::FIONBIO), ALLOW);
    assert_eq!(second(libc::TIOCSTI), REFUSE);
    // The kernel looks at 32 bits of it only.
    assert_eq!(second(libc::TIOCSTI | 1 << 32), REFUSE);
    // FIOSETOWN
    assert_eq!(second(0x8901), REFUSE);
}

#[test]
fn a_call_about_a_process_is_about_this_one() {
    let futex = |operation| of(libc::SYS_futex, [0, operation, 0]);
    assert_eq!(futex(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG), ALLOW);
    assert_eq!(futex(libc::FUTEX_CMP_REQUEUE_PI), REFUSE);
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
}

#[test]
fn new_code_is_refused_and_nothing_else() {
    let verdicts = ASKED_WITH_CODE
        .iter()
        .map(|&(call, asked)| (number(call), question(asked, PID)));
    let program = filter(&segments(verdicts, allow(), None));
    let verdict = |call, third: i32| {
        let arguments = [0, 0, third as u64, 0, 0, 0];
        interpret(&program, ARCHITECTURE, number(call), arguments)
    };
    let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        assert_eq!(verdict(call, read | write), ALLOW);
        assert_eq!(verdict(call, read | execute), REFUSE);
    }
    assert_eq!(verdict(libc::SYS_seccomp, 0), REFUSE);
    assert_eq!(verdict(libc::SYS_munmap, execute), ALLOW);
    assert_eq!(verdict(libc::SYS_read, execute), ALLOW);
}

#[test]
fn the_kernel_takes_it_and_refuses_what_is_not_for_engines() {
    use std::process::Command;
    // A filter is a thread's, unless it is told otherwise.
    let filtered = || {
        rustix::thread::set_no_new_privs(true).unwrap();
        sys::process::filter_system_calls(&program(rustix::process::getpid().as_raw_pid()), 0)
            .unwrap();
        let refused = |error: io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        refused(sys::exec::exec_path(c"/bin/true", &[], &[]));
        refused(sys::process::unshare(rustix::thread::UnshareFlags::NEWUSER).unwrap_err());
        refused(sys::process::set_groups(&[]).unwrap_err());
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
        let unix = rustix::net::AddressFamily::UNIX;
        let pair = |kind| {
            let flags = rustix::net::SocketFlags::empty();
            rustix::net::socketpair(unix, kind, flags, None)
        };
        let sockets = pair(rustix::net::SocketType::STREAM).unwrap();
        refused(pair(rustix::net::SocketType::SEQPACKET).unwrap_err().into());
        drop(sockets);
        // What a guest does is as it was.
        let thread = std::thread::spawn(|| std::net::TcpListener::bind("127.0.0.1:0").is_ok());
        assert!(thread.join().unwrap());
        assert!(std::fs::read_dir("/").unwrap().count() > 0);
    };
    std::thread::spawn(filtered).join().unwrap();
    // The test's own thread is not filtered.
    assert!(Command::new("/bin/true").status().unwrap().success());
}
