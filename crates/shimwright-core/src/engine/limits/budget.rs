//! A budget: how much of something a guest uses, and how much it may use.

/// What is used, and the limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    limit: Option<u64>,
    used: u64,
}

/// The request exceeds the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) needed: u64,
    pub(crate) limit: u64,
}

impl Account {
    /// Creates an unused budget.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self { limit, used: 0 }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Counts growth from one size to another. Counts nothing if that exceeds the limit.
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
