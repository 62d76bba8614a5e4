//! The budget of a guest's linear memory.

use crate::engine::limits::budget::{Account, Exceeded};

/// The unit in which linear memory grows, in bytes.
pub(crate) const PAGE: u64 = 65536;

/// The budget of a guest's linear memory. An engine asks before it lets a memory grow.
///
/// A guest has one budget for all of its memories. A server that makes an instance for each request
/// gives each instance a clone.
#[derive(Clone, Debug, Default)]
pub struct LinearMemory(Account);

impl LinearMemory {
    /// Creates an unused budget; `limit` is in bytes.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self(Account::new(limit))
    }

    /// The limit in bytes, if there is one.
    pub fn limit(&self) -> Option<u64> {
        self.0.limit()
    }

    /// The limit in whole pages of 65536 bytes, for an engine that takes a maximum size instead of
    /// asking. This enforces the limit if guests have one memory.
    pub fn limit_in_pages(&self) -> Option<u32> {
        let limit = self.limit()?;
        Some(u32::try_from(limit / PAGE).unwrap_or(u32::MAX))
    }

    /// Checks for such an engine whether a memory may begin with so many pages. Counts nothing.
    ///
    /// # Errors
    ///
    /// The guest would exceed its limit.
    pub fn check_pages(&self, pages: u64) -> Result<(), LinearMemoryExceeded> {
        self.clone().grow(0, pages.saturating_mul(PAGE))
    }

    /// Counts the growth of a memory from one size to another, in bytes. A new memory grows from 0.
    ///
    /// # Errors
    ///
    /// The guest would exceed its limit. Then nothing is counted.
    pub fn grow(&mut self, from: u64, to: u64) -> Result<(), LinearMemoryExceeded> {
        self.0
            .grow(from, to)
            .map_err(|Exceeded { needed, limit }| LinearMemoryExceeded { needed, limit })
    }
}

/// The guest needs more linear memory than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest needs {needed} bytes of linear memory, but its limit is {limit}")]
pub struct LinearMemoryExceeded {
    needed: u64,
    limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memories_of_a_guest_are_counted_together() {
        let mut memory = LinearMemory::new(Some(3 << 16));
        memory.grow(0, 1 << 16).unwrap();
        memory.grow(0, 2 << 16).unwrap();
        let error = memory.grow(1 << 16, 2 << 16).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the guest needs 262144 bytes of linear memory, but its limit is 196608"
        );
        // Nothing was counted, and what is there already may be asked for again.
        memory.grow(2 << 16, 2 << 16).unwrap();
    }

    #[test]
    fn an_engine_may_count_in_pages() {
        let memory = LinearMemory::new(Some((3 << 16) + 1));
        assert_eq!(memory.limit_in_pages(), Some(3));
        memory.check_pages(3).unwrap();
        memory.check_pages(4).unwrap_err();
        memory.check_pages(u64::MAX).unwrap_err();
    }

    #[test]
    fn without_a_limit_there_is_none() {
        assert_eq!(LinearMemory::default().limit_in_pages(), None);
        let mut memory = LinearMemory::default();
        memory.grow(0, u64::MAX).unwrap();
        memory.grow(0, u64::MAX).unwrap();
    }
}
