//! Logical cores on live sites, and values at addresses.

mod order;
pub mod sram;

pub use order::snake;
