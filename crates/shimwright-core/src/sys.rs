//! Every `unsafe` block of this crate: system calls that have no safe wrapper.
#![expect(
    unsafe_code,
    reason = "the one audited place for calls without a safe wrapper"
)]

mod bpf;
pub(crate) mod landlock;
pub(crate) mod mount;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{MemfdFlags, SealFlags};

pub(crate) use bpf::{
    Instruction, attach_device_program, detach_device_program, device_programs, load_device_program,
};

/// Bytes that are either owned or a read-only private mapping of a file.
#[derive(Debug)]
pub(crate) enum Mapping {
    Owned(Vec<u8>),
    Mapped { address: *const u8, length: usize },
}

// SAFETY: the mapping is read-only for its whole life and is not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `file`. An empty file gives no bytes.
    pub(crate) fn of_file(file: BorrowedFd<'_>) -> io::Result<Self> {
        let length = usize::try_from(rustix::fs::fstat(file)?.st_size)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if length == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of ours.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                rustix::mm::ProtFlags::READ,
                rustix::mm::MapFlags::PRIVATE,
                file,
                0,
            )?
        };
        Ok(Self::Mapped {
            address: address.cast::<u8>(),
            length,
        })
    }
}

impl From<Vec<u8>> for Mapping {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            // SAFETY: `of_file` mapped `length` bytes at `address`, and only `drop` unmaps them.
            // A file that shrinks meanwhile ends the process with SIGBUS; one that changes is
            // still initialised memory, and what reads it validates it.
            Self::Mapped { address, length } => unsafe {
                std::slice::from_raw_parts(*address, *length)
            },
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Self::Mapped { address, length } = self {
            // SAFETY: the range was mapped by `of_file`, and no borrow of it outlives `self`.
            // Unmapping a range that is ours cannot fail.
            let _ = unsafe { rustix::mm::munmap(address.cast_mut().cast(), *length) };
        }
    }
}

/// A mapping through which a test writes to a file.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct SharedMapping {
    address: *mut u8,
    length: usize,
}

#[cfg(test)]
impl SharedMapping {
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let shared = rustix::mm::MapFlags::SHARED;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of ours.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, access, shared, file, 0)? };
        let address = address.cast();
        Ok(Self { address, length })
    }

    pub(crate) fn write(&mut self, at: usize, value: u8) {
        assert!(at < self.length);
        // SAFETY: the place is in the mapping, which lives as long as the process.
        unsafe { self.address.add(at).write_volatile(value) };
    }
}

/// Writes the dirty pages of a file back and waits for it, without its metadata
/// (`sync_file_range(2)`). From then on a write through a mapping is seen by the file system.
pub(crate) fn write_back(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: it takes a descriptor, which is open, and integers; 0 bytes mean all.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An anonymous file in memory that [`seal`] can make read-only.
pub(crate) fn sealable_memfd(name: &CStr) -> io::Result<File> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok(File::from(fd))
}

/// Forbids every further change of a [`sealable_memfd`].
pub(crate) fn seal(file: impl AsFd) -> io::Result<()> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, all)?)
}

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

/// Closes every descriptor above standard error but these.
///
/// Only at the very start of a process, or of a forked child.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for last in keep
        .into_iter()
        .filter(|&fd| fd >= 3)
        .map(Some)
        .chain([None])
    {
        let end = last.map_or(u32::MAX, |fd| fd - 1);
        if first <= end {
            // SAFETY: called either before this process has opened anything, or in a freshly forked
            // child, which leaves the owners of these descriptors behind: it ends with `exit_now`
            // or `exec` and drops none of them.
            if unsafe { libc::close_range(first, end, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = last.map_or(u32::MAX, |fd| fd + 1);
    }
    Ok(())
}

/// Closes a descriptor that nothing in this process owns any more.
///
/// Only in a forked child that leaves the owner behind: it executes or ends with [`exit_now`].
pub(crate) fn close(descriptor: RawFd) {
    // SAFETY: the owner of the number is never dropped in the child, as documented.
    unsafe { libc::close(descriptor) };
}

/// Closes every descriptor of a file, directory or device above standard error but these. Pipes and
/// sockets stay.
///
/// Only in a forked child, as for [`close`].
pub(crate) fn close_files_but(keep: &[RawFd]) -> io::Result<()> {
    /// The kernel gives away the lowest free number, and such a child has a few dozen.
    const LOOKED_AT: RawFd = 256;
    for number in 3..LOOKED_AT {
        // SAFETY: the descriptor is only asked for, for the length of this expression.
        let found = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) });
        let Ok(found) = found else { continue };
        let kind = rustix::fs::FileType::from_raw_mode(found.st_mode);
        if !(kind.is_fifo() || kind.is_socket() || keep.contains(&number)) {
            close(number);
        }
    }
    // SAFETY: as for `close`.
    match unsafe { libc::close_range(LOOKED_AT.unsigned_abs(), u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Signals the shim process takes from a descriptor instead of a handler.
const SHIM_SIGNALS: [i32; 6] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGPIPE,
];

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and `sigaddset` is given that set and valid
    // signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks the shim's signals and returns a non-blocking descriptor from which they are read.
pub(crate) fn signal_fd() -> io::Result<OwnedFd> {
    let set = signal_set(&SHIM_SIGNALS);
    // SAFETY: `set` is initialised; a null third argument is allowed.
    let fd = unsafe {
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the number of one pending signal from a [`signal_fd`].
pub(crate) fn read_signal(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    let length = rustix::io::read(fd, &mut info)?;
    match info.first_chunk::<4>() {
        Some(number) if length == info.len() => {
            i32::try_from(u32::from_ne_bytes(*number)).map_err(io::Error::other)
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Gives a child process the default signal mask and dispositions, so that nothing it executes
/// inherits the shim's.
pub(crate) fn reset_signals() -> io::Result<()> {
    let none = signal_set(&[]);
    // SAFETY: `none` is initialised; `SIG_DFL` is a valid disposition for `SIGPIPE`, which the
    // Rust runtime ignores.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends the process with 128 + the signal's number. Async-signal-safe.
extern "C" fn exit_on_signal(signal: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and may be called in a signal handler.
    unsafe { libc::_exit(128 + signal) }
}

/// Makes the signals that end an ordinary process end this one too.
///
/// The runner is its container's PID 1, for which the kernel drops every signal whose
/// disposition is the default one (`pid_namespaces(7)`). Handlers run between any two
/// instructions, also those of a guest in a tight loop.
pub(crate) fn end_on_signals() {
    let signals = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGIO,
        libc::SIGPWR,
    ];
    for signal in signals {
        // SAFETY: the handler has the required signature and is async-signal-safe.
        unsafe { libc::signal(signal, exit_on_signal as *const () as libc::sighandler_t) };
    }
}

/// Ends the process because its time is over. Async-signal-safe.
fn exit_on_time_limit() -> ! {
    const REASON: &[u8] = b"the guest has reached its time limit\n";
    let mut stderr = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `poll`, `write` and `_exit` may be called in a signal handler (`signal-safety(7)`),
    // and are given one structure and one constant. A pipe that can be written takes a page, so
    // this never waits for whoever reads it.
    unsafe {
        if libc::poll(&raw mut stderr, 1, 0) == 1 && stderr.revents & libc::POLLOUT != 0 {
            libc::write(libc::STDERR_FILENO, REASON.as_ptr().cast(), REASON.len());
        }
        libc::_exit(i32::from(crate::exit::Status::TIMED_OUT.code()))
    }
}

/// Has the kernel end this process after some seconds, whatever it does by then.
pub(crate) fn end_after(seconds: u32) {
    LIMITED.store(true, Ordering::SeqCst);
    // SAFETY: the handler has the required signature and is async-signal-safe; `alarm` takes an
    // integer only.
    unsafe {
        libc::signal(
            libc::SIGALRM,
            exit_on_alarm as *const () as libc::sighandler_t,
        );
        libc::alarm(seconds);
    }
}

/// Written to by [`drain_on_signal`] at the first signal; negative if there is nothing to drain.
static DRAIN: AtomicI32 = AtomicI32::new(-1);
/// How long draining may take, in seconds.
static GRACE: AtomicU32 = AtomicU32::new(0);
/// Whether an alarm means that the time of the process is over.
static LIMITED: AtomicBool = AtomicBool::new(false);
/// The signal that draining began with.
static DRAINING: AtomicI32 = AtomicI32::new(0);

/// Writes to [`DRAIN`] once, and ends the process after that. Async-signal-safe.
extern "C" fn drain_on_signal(signal: i32) {
    let pipe = DRAIN.swap(-1, Ordering::SeqCst);
    if pipe < 0 {
        exit_on_signal(signal);
    }
    DRAINING.store(signal, Ordering::SeqCst);
    // SAFETY: both calls are async-signal-safe. The second is given one byte and a descriptor that
    // is never closed. It fails if nobody reads any more, so `errno`, which the interrupted code may
    // be about to look at, is put back; its location is valid for as long as the thread lives.
    unsafe {
        let errno = *libc::__errno_location();
        let grace = GRACE.load(Ordering::SeqCst);
        // There is one alarm, and a time limit that comes first is still one.
        let left = libc::alarm(grace);
        if left != 0 && left < grace {
            libc::alarm(left);
        }
        libc::write(pipe, [0_u8].as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Ends the process at the end of the time for draining, as the signal would have done that it
/// began with, or at the end of its own. Async-signal-safe.
extern "C" fn exit_on_alarm(alarm: i32) {
    match DRAINING.load(Ordering::SeqCst) {
        0 if LIMITED.load(Ordering::SeqCst) => exit_on_time_limit(),
        0 => exit_on_signal(alarm),
        signal => exit_on_signal(signal),
    }
}

/// Makes the first `SIGTERM` or `SIGINT` write to the returned pipe, and end the process only after
/// this many seconds: see [`crate::drain_on_signals`].
pub(crate) fn drain_on_signals(grace: u32) -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    GRACE.store(grace, Ordering::SeqCst);
    // Never closed, as a handler may write to it at any time.
    DRAIN.store(writer.into_raw_fd(), Ordering::SeqCst);
    for (signal, handler) in [
        (libc::SIGALRM, exit_on_alarm as extern "C" fn(i32)),
        (libc::SIGTERM, drain_on_signal),
        (libc::SIGINT, drain_on_signal),
    ] {
        // SAFETY: the handler has the required signature and is async-signal-safe.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
    Ok(reader)
}

/// Lets `descriptor` survive the next `exec`.
pub(crate) fn keep_over_exec(descriptor: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(
        descriptor,
        rustix::io::FdFlags::empty(),
    )?)
}

/// Copies descriptors to the numbers from `first` on, where a program expects them after `exec`.
///
/// Only in a forked child that is about to execute: what had these numbers is closed.
pub(crate) fn place(descriptors: &[OwnedFd], first: RawFd) -> io::Result<()> {
    let beyond = (first..).nth(descriptors.len()).unwrap_or(RawFd::MAX);
    // One of them may sit on the number of another.
    let moved = descriptors
        .iter()
        .map(|descriptor| Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, beyond)?))
        .collect::<io::Result<Vec<OwnedFd>>>()?;
    for (number, descriptor) in (first..).zip(&moved) {
        // SAFETY: the child leaves the owners of these numbers behind: it executes or ends with
        // `exit_now`, and drops none of them before that.
        if unsafe { libc::dup2(descriptor.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes ownership of a descriptor this process was started with.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: `fcntl` with `F_GETFD` only inspects the number.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, and the role that was handed its number is its only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Replaces this process by the program behind an open descriptor; returns only on failure.
pub(crate) fn exec_fd(program: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    exec_at(program.as_raw_fd(), c"", libc::AT_EMPTY_PATH, args, env)
}

/// Replaces this process by the program `name` in a directory; returns only on failure.
pub(crate) fn exec_in(
    directory: BorrowedFd<'_>,
    name: &CStr,
    args: &[CString],
    env: &[CString],
) -> io::Error {
    exec_at(directory.as_raw_fd(), name, 0, args, env)
}

/// Replaces this process by the program at `path`; returns only on failure.
pub(crate) fn exec_path(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    exec_at(libc::AT_FDCWD, path, 0, args, env)
}

fn exec_at(dir: RawFd, path: &CStr, flags: i32, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists are null-terminated arrays of strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            dir,
            path.as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            flags,
        )
    };
    io::Error::last_os_error()
}

/// Takes an exclusive lock of one byte of `file`, which ends with the open file description
/// (`F_OFD_SETLK` of `fcntl(2)`), and tells whether it was to be had.
pub(crate) fn try_lock_byte(file: BorrowedFd<'_>, offset: i64) -> io::Result<bool> {
    match lock(file, offset, libc::F_OFD_SETLK) {
        Ok(()) => Ok(true),
        // EAGAIN or EACCES.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn lock(file: BorrowedFd<'_>, offset: i64, command: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and `lock` is a complete `struct flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps the C library from loading name service modules out of the container's root, where the
/// image could supply them: host names are looked up in `/etc/hosts` and by DNS only, and what
/// else has a name in files. Nothing of ours looks anything else up there, see
/// [`home`](crate::sandbox::home); this is the second wall.
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

/// Forbids transparent huge pages for this process and its children: a small process that
/// touches two bytes of its heap should not hold two megabytes.
pub(crate) fn disable_huge_pages() {
    // SAFETY: `PR_SET_THP_DISABLE` takes integers only. A kernel without it changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Lets go of the pages of code and constants that this process has touched; what is touched again
/// comes back from the page cache.
pub(crate) fn release_code() {
    unsafe extern "C" fn release(
        object: *mut libc::dl_phdr_info,
        _: libc::size_t,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `dl_iterate_phdr` passes a description that is valid during this call.
        let object = unsafe { &*object };
        // SAFETY: there are `dlpi_phnum` headers, which are mapped as long as the object is.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        if has_relocated_code(object.dlpi_addr, headers) {
            return 0;
        }
        for header in headers {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            // SAFETY: this asks for a number.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.unsigned_abs();
            let begin = (object.dlpi_addr + header.p_vaddr).next_multiple_of(page);
            let end = (object.dlpi_addr + header.p_vaddr + header.p_memsz) / page * page;
            if begin < end {
                // SAFETY: nobody can have written to these whole pages of a private mapping of a
                // file, so they are the file's, as they will be again: the kernel itself may take
                // such pages away at any time. A failure changes nothing.
                unsafe {
                    libc::madvise(
                        begin as *mut libc::c_void,
                        (end - begin) as libc::size_t,
                        libc::MADV_DONTNEED,
                    )
                };
            }
        }
        0
    }
    // SAFETY: the function keeps to what `dl_iterate_phdr(3)` asks of it, and cannot unwind.
    unsafe { libc::dl_iterate_phdr(Some(release), std::ptr::null_mut()) };
}

/// Whether the code of an object that is loaded at `base` was written to when it was, in the way of
/// libraries that were not compiled to be any (`DT_TEXTREL`, `DF_TEXTREL` of `elf(5)`).
fn has_relocated_code(base: libc::Elf64_Addr, headers: &[libc::Elf64_Phdr]) -> bool {
    const DT_NULL: u64 = 0;
    const DT_TEXTREL: u64 = 22;
    const DT_FLAGS: u64 = 30;
    const DF_TEXTREL: u64 = 4;
    let Some(dynamic) = headers.iter().find(|h| h.p_type == libc::PT_DYNAMIC) else {
        return false;
    };
    let mut entry = (base + dynamic.p_vaddr) as *const [u64; 2];
    loop {
        // SAFETY: the section is mapped, and ends with an entry of `DT_NULL`.
        match unsafe { entry.read() } {
            [DT_NULL, _] => return false,
            [DT_TEXTREL, _] => return true,
            [DT_FLAGS, flags] if flags & DF_TEXTREL != 0 => return true,
            // SAFETY: this is not the last entry.
            _ => entry = unsafe { entry.add(1) },
        }
    }
}

/// Gives the kernel back what was freed on the heap, as far as the C library can.
pub(crate) fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches free memory only, and takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0)
    };
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

/// Waits until a descriptor is readable: for a pidfd, until its process has ended.
///
/// # Errors
///
/// `TimedOut` if it is not before the deadline.
pub(crate) fn wait_readable(descriptor: impl AsFd, deadline: std::time::Instant) -> io::Result<()> {
    if becomes_readable(descriptor, deadline)? {
        return Ok(());
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits likewise, and says whether it is readable before the deadline.
pub(crate) fn becomes_readable(
    descriptor: impl AsFd,
    deadline: std::time::Instant,
) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut wanted, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Undoes [`disable_huge_pages`] for a program that is not ours.
pub(crate) fn allow_huge_pages() {
    // SAFETY: `PR_SET_THP_DISABLE` takes integers only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
}

/// Whether the other end of a pipe has been closed.
pub(crate) fn is_hung_up(pipe: impl AsFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut wanted = [PollFd::new(&pipe, PollFlags::empty())];
    poll(&mut wanted, Some(&Timespec::default()))?;
    Ok(wanted[0].revents().contains(PollFlags::HUP))
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

/// Sends any signal, also 0 and real-time ones, to the process behind a handle.
pub(crate) fn pidfd_send_signal(handle: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null `siginfo` is allowed and nothing else is a pointer.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            handle.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the async runtime watch what happens to a file (`inotify(7)`).
pub(crate) fn watch_file(
    file: &Path,
    events: WatchFlags,
) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&inotify, file, events)?;
    watch(inotify)
}

/// Has the async runtime watch a descriptor.
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and the
    // watch owns it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(descriptor) }?)
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

/// Has the kernel refuse to make memory executable that was not, or writable memory executable, in
/// this process and for good (`PR_SET_MDWE` of `prctl(2)`). A kernel before 6.3 changes nothing.
pub(crate) fn deny_write_execute() {
    // SAFETY: the call takes integers only, and changes no mapping that there is.
    unsafe {
        libc::prctl(
            libc::PR_SET_MDWE,
            libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN),
            0_u64,
            0_u64,
            0_u64,
        )
    };
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
