//! Movement of data between cores: which core sends what to which, and what it costs.

mod cost;
mod exchange;
mod parts;
mod stages;
#[cfg(test)]
pub(crate) mod tests;

pub use cost::{bytes_moved, cost, estimate, messages};
pub use exchange::{Unroutable, exchange, factor};
pub use parts::{Part, parts_of, refine, storage_dims};
