//! Budgets for what only an engine can count.

mod budget;
pub(crate) mod linear_memory;
pub(crate) mod table_elements;
