//! The budget of the elements in a guest's tables.

use crate::engine::limits::budget::{Account, Exceeded};

/// The budget of the elements in a guest's tables. An engine asks before it lets a table grow. A
/// guest has one budget for all of its tables, as for its [`LinearMemory`](crate::LinearMemory).
#[derive(Clone, Debug, Default)]
pub struct TableElements(Account);

impl TableElements {
    /// Creates an unused budget.
    #[cfg_attr(feature = "testing", visibility::make(pub))]
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self(Account::new(limit))
    }

    /// Counts the growth of a table from one number of elements to another. A new table grows from 0.
    ///
    /// # Errors
    ///
    /// The guest would exceed its limit. Then nothing is counted.
    pub fn grow(&mut self, from: u64, to: u64) -> Result<(), TableElementsExceeded> {
        self.0
            .grow(from, to)
            .map_err(|Exceeded { needed, limit }| TableElementsExceeded { needed, limit })
    }
}

/// The guest needs more table elements than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest needs {needed} elements in its tables, but its limit is {limit}")]
pub struct TableElementsExceeded {
    needed: u64,
    limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_a_guest_are_counted_together() {
        let mut tables = TableElements::new(Some(10));
        tables.grow(0, 6).unwrap();
        tables.grow(0, 3).unwrap();
        let error = tables.grow(3, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the guest needs 11 elements in its tables, but its limit is 10"
        );
        tables.grow(3, 4).unwrap();
        TableElements::default().grow(0, u64::MAX).unwrap();
    }
}
