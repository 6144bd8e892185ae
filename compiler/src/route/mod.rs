//! Movement of data between cores: which core sends what to which, and what it costs.

mod cost;
mod factor;
#[cfg(test)]
pub(crate) mod tests;

pub use cost::{bytes_moved, cost, estimate, messages};
pub use dojoc_ir::mesh::route::{Part, Unroutable, exchange, parts_of, refine, storage_dims};
pub use factor::factor;
