//! This process: forking, namespaces, identity, and what it may do.

use std::io;

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
