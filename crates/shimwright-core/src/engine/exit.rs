//! Exit statuses: what containerd is told when a task ends.

/// The exit status of a task, 0 to 255.
///
/// | what happened | status |
/// | --- | --- |
/// | the guest returned, or exited with *n* | *n* modulo 256 |
/// | the guest reached its time limit | 124 |
/// | the engine could not run the guest | 125 |
/// | a Linux program exists but could not be executed | 126 |
/// | a Linux program disappeared before it was executed, or an exec could not be started | 127 |
/// | the guest trapped | 134, that is 128 + `SIGABRT` |
/// | ended by signal *s* | 128 + *s*; 137 always means `SIGKILL`, perhaps from the kernel's OOM killer |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    /// The guest reached its time limit, as the container's standard error says too. `timeout(1)`
    /// uses the same number.
    pub const TIMED_OUT: Self = Self(crate::sys::signal::TIMED_OUT);
    /// The engine could not run the guest; the reason is on the container's standard error.
    pub const ENGINE_FAILED: Self = Self(125);
    /// The guest trapped; the reason is on the container's standard error.
    pub const TRAPPED: Self = Self(134);
    /// An exec could not be started. The client got the reason.
    pub(crate) const NOT_STARTED: Self = Self(127);
    /// Ended by `SIGKILL`.
    pub const KILLED: Self = Self(137);

    /// The guest's own exit code, modulo 256 as in the kernel.
    pub fn from_code(code: i32) -> Self {
        Self(code.to_le_bytes()[0])
    }

    /// This signal ended the process.
    pub fn from_signal(signal: i32) -> Self {
        Self::from_code(128 + signal)
    }

    /// The status as passed to `exit_group(2)`.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl From<Status> for u32 {
    fn from(status: Status) -> Self {
        Self::from(status.0)
    }
}

impl From<Status> for std::process::ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_cut_to_eight_bits_as_by_the_kernel() {
        assert_eq!(Status::from_code(3).code(), 3);
        assert_eq!(Status::from_code(256).code(), 0);
        assert_eq!(Status::from_code(-1).code(), 255);
    }

    #[test]
    fn signals_are_128_plus_their_number() {
        assert_eq!(Status::from_signal(9), Status::KILLED);
        assert_eq!(Status::from_signal(15).code(), 143);
    }
}
