//! Tests where all crates meet. The library has what they share.

pub mod filetest;
pub mod fuzz;
pub mod random_graph;
