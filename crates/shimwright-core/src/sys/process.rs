//! This process: forking, namespaces, identity, and what it may do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What [`fork`] returned into.
pub(crate) enum Forked {
    /// The process that called, with the child's pid.
    Parent(i32),
    /// The new process.
    Child,
}

/// Clones this process.
///
/// Only for a process with a single thread: locks that another thread holds would stay locked in
/// the child. The shim process keeps that rule, see `ARCHITECTURE.md`.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: with one thread, the child starts from a consistent state and may run any code.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        failed if failed < 0 => Err(io::Error::last_os_error()),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// A process to be made by [`clone`]: a child of this process's parent.
#[derive(Debug)]
pub(crate) struct NewProcess<'a> {
    /// It is the first of a pid namespace of its own.
    pub(crate) pid_namespace: bool,
    /// The v2 group that it is made in, as a directory; since Linux 5.7.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// What [`clone`] returned into.
pub(crate) enum Cloned {
    /// The process that called, with the pid of the new one and a handle on it. The pid may be another
    /// process's as soon as the new one has ended: whoever collects it is not this process.
    Caller(i32, OwnedFd),
    /// The new process.
    New,
}

/// Clones this process as [`fork`] does, with the same condition.
///
/// The C library does not see it: what it keeps about the calling thread is the caller's.
pub(crate) fn clone(new: &NewProcess<'_>) -> io::Result<Cloned> {
    let mut flags = libc::CLONE_PARENT | libc::CLONE_PIDFD;
    let mut handle: libc::c_int = -1;
    if new.pid_namespace {
        flags |= libc::CLONE_NEWPID;
    }
    let pid = match new.cgroup {
        // SAFETY: with one thread, the child starts from a consistent state and may run any code; it has
        // a copy of this stack. The third argument is where the kernel writes the handle; those after it
        // are ignored without their flags.
        None => unsafe {
            let flags = flags | libc::SIGCHLD;
            libc::syscall(libc::SYS_clone, flags, 0, &raw mut handle, 0, 0)
        },
        Some(cgroup) => {
            let flags = u64::from(flags.unsigned_abs()) | CLONE_INTO_CGROUP;
            let cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
            let arguments = CloneArguments {
                flags,
                pidfd: (&raw mut handle).expose_provenance() as u64,
                cgroup,
                ..CloneArguments::default()
            };
            // SAFETY: as above; the structure is of the given size, the kernel only reads it, and writes the
            // handle to the place that it names.
            unsafe {
                libc::syscall(
                    libc::SYS_clone3,
                    &raw const arguments,
                    size_of::<CloneArguments>(),
                )
            }
        }
    };
    match i32::try_from(pid) {
        Ok(0) => Ok(Cloned::New),
        // SAFETY: the kernel has opened it for this process, and nobody else knows it.
        Ok(pid) if pid > 0 => Ok(Cloned::Caller(pid, unsafe { OwnedFd::from_raw_fd(handle) })),
        _ => Err(io::Error::last_os_error()),
    }
}

/// From `linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of `linux/sched.h`, as of Linux 5.7.
#[derive(Default)]
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How a process is scheduled: `struct sched_attr` of `sched_setattr(2)` without its size and what has a
/// flag of its own.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Has this process, which has one thread, be scheduled like this.
pub(crate) fn schedule(schedule: &Schedule) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
        least: u32,
        most: u32,
    }
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).map_err(io::Error::other)?,
        policy: schedule.policy,
        flags: schedule.flags,
        nice: schedule.nice,
        priority: schedule.priority,
        runtime: schedule.runtime,
        deadline: schedule.deadline,
        period: schedule.period,
        least: 0,
        most: 0,
    };
    // SAFETY: the structure says its size, and the kernel only reads it.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Sets the class and the priority of this process's input and output (`ioprio_set(2)`).
pub(crate) fn set_io_priority(class: i64, priority: i64) -> io::Result<()> {
    /// From `linux/ioprio.h`.
    const IOPRIO_WHO_PROCESS: i32 = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = (class << IOPRIO_CLASS_SHIFT) | priority;
    // SAFETY: no argument is a pointer.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

/// Has the kernel describe itself to this process as one of 32 bits (`PER_LINUX32` of
/// `personality(2)`).
pub(crate) fn set_32_bit_personality() -> io::Result<()> {
    /// From `linux/personality.h`.
    const PER_LINUX32: libc::c_ulong = 8;
    // SAFETY: the argument is a number.
    match unsafe { libc::personality(PER_LINUX32) } {
        failed if failed < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sets the loopback device of this process's network namespace up (`netdevice(7)`).
pub(crate) fn set_loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: every field of the structure is a number, an array of numbers or a union of these.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = from.cast_signed();
    }
    let socket = socket.as_raw_fd();
    // SAFETY: both requests read and write one `ifreq`, whose flags the first one sets.
    unsafe {
        done(i64::from(libc::ioctl(
            socket,
            libc::SIOCGIFFLAGS,
            &raw mut request,
        )))?;
        request.ifr_ifru.ifru_flags |= i16::try_from(libc::IFF_UP).map_err(io::Error::other)?;
        done(i64::from(libc::ioctl(
            socket,
            libc::SIOCSIFFLAGS,
            &raw const request,
        )))
    }
}

/// What a system call without a result has returned.
fn done(returned: i64) -> io::Result<()> {
    match returned {
        failed if failed < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Ends this process at once: no destructors, no `atexit` handlers, nothing flushed.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Keeps the C library from loading name service modules out of the container's root, where the
/// image could supply them: host names are looked up in `/etc/hosts` and by DNS only, and what
/// else has a name in files. Nothing of ours looks anything else up there, see
/// [`home`](crate::container::home); this is the second wall.
pub(crate) fn built_in_name_lookup() {
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const libc::c_char, line: *const libc::c_char) -> i32;
    }
    let databases = [
        (c"hosts", c"files dns"),
        (c"services", c"files"),
        (c"protocols", c"files"),
        (c"networks", c"files"),
        (c"passwd", c"files"),
        (c"group", c"files"),
        (c"shadow", c"files"),
        (c"gshadow", c"files"),
        (c"initgroups", c"files"),
        (c"ethers", c"files"),
        (c"netgroup", c"files"),
        (c"publickey", c"files"),
        (c"rpc", c"files"),
    ];
    for (database, line) in databases {
        // SAFETY: both arguments are C strings; glibc documents the call as safe before other
        // name look-ups, and none has happened in this process.
        unsafe { __nss_configure_lookup(database.as_ptr(), line.as_ptr()) };
    }
}

/// The stack of a thread that calls next to nothing, in bytes.
const SMALL_STACK: libc::size_t = 64 << 10;

/// Runs `job` on a thread that costs as little as one can: `job` must not allocate, or it would get
/// a heap of its own, and no signal is delivered there.
pub(crate) fn spawn_small(
    job: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
) -> io::Result<()> {
    let mut all = std::mem::MaybeUninit::uninit();
    let mut before = std::mem::MaybeUninit::uninit();
    let mut attributes = std::mem::MaybeUninit::uninit();
    let mut thread = std::mem::MaybeUninit::uninit();
    // SAFETY: each set, the attributes and the thread are initialised by the call that is given
    // them first; the thread is detached, so nobody has to join it.
    let error = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        libc::pthread_attr_init(attributes.as_mut_ptr());
        let attributes = attributes.as_mut_ptr();
        libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(attributes, SMALL_STACK);
        let argument = std::ptr::null_mut();
        let error = libc::pthread_create(thread.as_mut_ptr(), attributes, job, argument);
        libc::pthread_attr_destroy(attributes);
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        error
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Starts a command in a session of its own.
pub(crate) fn new_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: `setsid` is async-signal-safe and touches no memory.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
}

/// Runs `prepare` in the child between `fork` and `exec`.
///
/// `prepare` must only make system calls: the caller has a single thread, so allocating would be
/// safe too, but nothing there needs it.
pub(crate) fn prepare_child(
    command: &mut std::process::Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the caller keeps to system calls, as documented.
    unsafe { command.pre_exec(prepare) };
}

/// Moves this process, which has one thread, into new namespaces.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors are not unshared, so nothing another owner holds changes its meaning.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Replaces the supplementary groups of this process, which has one thread, and of its children.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<_> = groups
        .iter()
        .map(|&group| rustix::process::Gid::from_raw(group))
        .collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Becomes an ordinary user and group, without supplementary groups; needs a single thread.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    let user = rustix::process::Uid::from_raw(id);
    let group = rustix::process::Gid::from_raw(id);
    set_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    Ok(rustix::thread::set_thread_res_uid(user, user, user)?)
}

/// Keeps other processes without `CAP_SYS_PTRACE` from inspecting this one, and the kernel from
/// writing its memory to a core file (`PR_SET_DUMPABLE` of `prctl(2)`). Executing a program undoes it.
pub(crate) fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        rustix::process::DumpableBehavior::NotDumpable,
    )?)
}

/// Has the kernel write no core file of this process, nor of the programs it executes.
pub(crate) fn write_no_core() -> io::Result<()> {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(rustix::process::setrlimit(
        rustix::process::Resource::Core,
        none,
    )?)
}

/// Gives this process and its children a session keyring of their own, empty and without a name
/// (`KEYCTL_JOIN_SESSION_KEYRING` of `keyctl(2)`). A kernel without keys has none to share.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    /// From `linux/keyctl.h`.
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for a new anonymous keyring; nothing else is a pointer.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match joined {
        failed if failed >= 0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
    }
}

/// Has the kernel ask a program before each system call of this thread, for good. The process has
/// to have `no_new_privs`, or a privilege.
pub(crate) fn filter_system_calls(
    program: &[libc::sock_filter],
    flags: libc::c_ulong,
) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies as many instructions as there are, and writes to none of them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match done {
        0 => Ok(()),
        failed if failed < 0 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!(
            "thread {thread} has another filter"
        ))),
    }
}
