//! Counting what a guest has of something against what it may have.

/// How much there is and may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    limit: Option<u64>,
    used: u64,
}

/// More than the limit was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) needed: u64,
    pub(crate) limit: u64,
}

impl Account {
    /// An account of nothing yet.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, used: 0 }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Counts something that grows from one size to another. If that is more than the limit,
    /// nothing is counted.
    pub(crate) fn grow(&mut self, from: u64, to: u64) -> Result<(), Exceeded> {
        let needed = self.used.saturating_add(to.saturating_sub(from));
        match self.limit {
            Some(limit) if needed > limit => Err(Exceeded { needed, limit }),
            _ => {
                self.used = needed;
                Ok(())
            }
        }
    }
}
