//! Tests where all crates meet. The library has what they share.

pub mod filetest;
pub mod fuzz;
pub mod held_out;
pub mod identities;
pub mod kernels;
pub mod layers;
pub mod random_graph;
pub mod random_program;
pub mod reduce;
pub mod rng;
