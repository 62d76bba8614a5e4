//! Releases memory that a waiting process does not need.
//!
//! Starting runs through megabytes of code: it builds an engine, links a guest, builds a sandbox.
//! These pages stay mapped and count as the process's memory, although waiting needs almost none of
//! them. They are unmapped when the process has settled; a page that is used again comes back from
//! the page cache, as after reclaim by the kernel. Free heap memory is returned too.

use std::ffi::c_void;
use std::time::Duration;

use crate::sys;

/// How long a process has been at work, or at rest, until it lets go of memory: one that ends
/// sooner would do it for nothing.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);

/// Lets go of it now. It takes some 0.1 ms, and what runs on meanwhile a little longer.
pub(crate) fn release_memory() {
    sys::memory::release_code();
    sys::memory::release_heap();
}

/// Lets go of it when the process has settled, whatever its other threads do then: an engine may
/// give none of its own away while its guest waits.
///
/// A process that may have no further thread goes on as it is.
pub(crate) fn release_memory_once_settled() {
    extern "C" fn settle(_: *mut c_void) -> *mut c_void {
        std::thread::sleep(SETTLED);
        release_memory();
        std::ptr::null_mut()
    }
    let _ = sys::process::spawn_small(settle);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of this program that is mapped, in KiB.
    fn resident_code() -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = std::env::current_exe().unwrap();
        let mut inside = false;
        let mut sum = 0;
        for line in maps.lines() {
            if line.contains('-') && line.contains(" r-xp ") {
                inside = line.ends_with(own.to_str().unwrap());
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| inside) {
                sum += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                inside = false;
            }
        }
        sum
    }

    #[test]
    fn code_is_let_go_of_and_comes_back() {
        let before = resident_code();
        release_memory();
        let after = resident_code();
        assert!(
            0 < after && after < before,
            "{before} KiB, then {after} KiB"
        );
    }

    #[test]
    fn a_small_thread_runs_its_job() {
        use std::sync::atomic::{AtomicBool, Ordering};
        static DONE: AtomicBool = AtomicBool::new(false);
        extern "C" fn job(_: *mut c_void) -> *mut c_void {
            DONE.store(true, Ordering::Release);
            std::ptr::null_mut()
        }
        sys::process::spawn_small(job).unwrap();
        let begin = std::time::Instant::now();
        while !DONE.load(Ordering::Acquire) {
            assert!(begin.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    }
}
