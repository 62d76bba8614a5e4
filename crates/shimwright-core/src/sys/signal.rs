//! Signals: those the shim process reads, and those that end or drain a runner.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

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

/// Gives a forked child the default signal mask and dispositions, except that a broken pipe is an
/// error of the write: it does not end the process.
///
/// `SIGPIPE` gets a handler that does nothing. Unlike an ignored signal, a handled one is back at
/// its default in every program that is executed (`execve(2)`), without a further call.
pub(crate) fn reset_signals() -> io::Result<()> {
    let none = signal_set(&[]);
    // SAFETY: `none` is initialised; the handler has the required signature and does nothing.
    unsafe {
        libc::signal(libc::SIGPIPE, do_nothing as *const () as libc::sighandler_t);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Handles a signal that only has to interrupt.
extern "C" fn do_nothing(_: i32) {}

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

/// The exit status of a process whose time is over, as of `timeout(1)`.
pub(crate) const TIMED_OUT: u8 = 124;

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
        libc::_exit(i32::from(TIMED_OUT))
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
/// Whether the next alarm means that the time of the process is over.
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
        if left != 0 && left <= grace {
            libc::alarm(left);
        } else {
            LIMITED.store(false, Ordering::SeqCst);
        }
        libc::write(pipe, [0_u8].as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Ends the process at the end of its time, or at the end of the time for draining, as the signal
/// would have done that it began with. Async-signal-safe.
extern "C" fn exit_on_alarm(alarm: i32) {
    if LIMITED.load(Ordering::SeqCst) {
        exit_on_time_limit();
    }
    match DRAINING.load(Ordering::SeqCst) {
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
