//! The account of the elements of a guest's tables.

use crate::engine::limits::budget::{Account, Exceeded};

/// How many elements the tables of a guest have and may have, for an engine to ask before it gives
/// more. They are counted together, as its [`LinearMemory`](crate::LinearMemory) is.
#[derive(Clone, Debug, Default)]
pub struct TableElements(Account);

impl TableElements {
    /// An account without tables yet.
    pub fn new(limit: Option<u64>) -> Self {
        Self(Account::new(limit))
    }

    /// Counts a table that grows from one number of elements to another; a new one grows from 0.
    ///
    /// # Errors
    ///
    /// The guest would have more than its limit. Nothing is counted then.
    pub fn grow(&mut self, from: u64, to: u64) -> Result<(), TableElementsExceeded> {
        self.0
            .grow(from, to)
            .map_err(|Exceeded { needed, limit }| TableElementsExceeded { needed, limit })
    }
}

/// A guest asks for more elements than its tables may have.
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
