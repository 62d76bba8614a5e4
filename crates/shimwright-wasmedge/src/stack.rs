//! The end of the guest's stack is a trap.
//!
//! Compiled code does not look how deep it calls: where the stack ends the kernel sends `SIGSEGV`.
//! While such code runs the library handles that signal, as memory out of bounds is found out by it
//! too, but its handler is called on the very stack that is used up, so the process would just end.
//! The library sets its handler each time it enters compiled code, and nothing of ours runs after
//! that. So its call of `sigaction` is ours to answer: ours handles the signal on another stack and
//! passes on to the library's handler what has nothing to do with the stack.
#![expect(
    unsafe_code,
    reason = "the C library's `sigaction` and signal handlers have no safe wrapper"
)]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t};
use rustix::process::{Resource, Rlimit};
use shimwright_core::Status;

/// What a trap is told like, as the runner tells all others.
const REASON: &[u8] = b"wasmedge: the stack is used up: calls are nested too deeply\n";

/// How much stack a guest has at most, if the process may use more or all there is.
const MOST: u64 = 64 << 20;

/// How far below the end of the stack an access is still one of the stack, however large the frame.
/// Linux keeps 128 MiB below a program's stack for it, or what its limit was at first.
const BELOW: usize = 64 << 20;

/// For handlers, of which the library's collects the addresses of the calls.
const ALTERNATE: usize = 64 << 10;

/// The addresses of the guest's stack and below: those that are no memory are beyond its end.
static LOWEST: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
/// The library's handler.
static LIBRARYS: AtomicUsize = AtomicUsize::new(0);

type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// Makes the end of this thread's stack a trap, if it is the process's first thread, as a runner's
/// is. On another thread it is what the library makes of it: memory out of bounds.
pub(crate) fn trap_at_its_end() -> io::Result<()> {
    let memory = vec![0_u8; ALTERNATE].leak();
    let alternate = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: memory.len(),
    };
    // SAFETY: the memory is leaked, so it stays for as long as the thread may use it.
    if unsafe { libc::sigaltstack(&raw const alternate, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if rustix::thread::gettid() == rustix::process::getpid() {
        let mut limit = rustix::process::getrlimit(Resource::Stack);
        let most = limit.current.map_or(MOST, |current| current.min(MOST));
        if limit.current != Some(most) {
            limit = Rlimit {
                current: Some(most),
                ..limit
            };
            rustix::process::setrlimit(Resource::Stack, limit)?;
        }
        let here = (&raw const limit).addr();
        let most = usize::try_from(most).map_err(io::Error::other)?;
        HIGHEST.store(here, Ordering::SeqCst);
        LOWEST.store(here.saturating_sub(most + BELOW), Ordering::SeqCst);
    }
    Ok(())
}

/// What the library, and everything else in the process, calls instead of the C library's function.
/// It differs for handlers of `SIGSEGV` only.
///
/// # Safety
///
/// As for the function of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    unsafe extern "C" {
        /// The name that the C library itself has for it.
        fn __sigaction(
            signal: c_int,
            new: *const libc::sigaction,
            old: *mut libc::sigaction,
        ) -> c_int;
    }
    // SAFETY: the caller's pointer is null or one to an action.
    let asked = unsafe { new.as_ref() };
    let before_ours = asked.filter(|asked| {
        let is_ours = asked.sa_sigaction == on_fault as *const () as usize;
        signal == libc::SIGSEGV && asked.sa_flags & libc::SA_SIGINFO != 0 && !is_ours
    });
    let Some(&(mut action)) = before_ours else {
        // SAFETY: the caller's own arguments.
        return unsafe { __sigaction(signal, new, old) };
    };
    LIBRARYS.store(action.sa_sigaction, Ordering::SeqCst);
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags |= libc::SA_ONSTACK;
    // SAFETY: an action with a handler of the kind that its flags say, and the caller's pointer.
    unsafe { __sigaction(signal, &raw const action, old) }
}

/// Ends the process if the stack is used up. Async-signal-safe.
///
/// What was called last may be anything, also something of the library with a lock, so the guest is
/// not unwound from here as it is from its own faults.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's own description of the signal, whose address has a meaning if it is not
    // another process that has sent it.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
    let stack = LOWEST.load(Ordering::SeqCst)..HIGHEST.load(Ordering::SeqCst);
    if address.is_some_and(|address| stack.contains(&address)) {
        // SAFETY: both may be called in a signal handler, and are given a constant and a number.
        unsafe {
            libc::write(libc::STDERR_FILENO, REASON.as_ptr().cast(), REASON.len());
            libc::_exit(i32::from(Status::TRAPPED.code()));
        }
    }
    // SAFETY: a handler that somebody has set for this signal, with these parameters. It may leave
    // this function by a jump, which has nothing to clean up.
    unsafe {
        let librarys: Handler = std::mem::transmute(LIBRARYS.load(Ordering::SeqCst));
        librarys(signal, info, context);
    }
}
