//! Tests where all crates meet. The library has what they share.

pub mod filetest;
pub mod random_graph;
