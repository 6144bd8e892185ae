//! dojoc.

pub mod emit;
pub mod graph;
pub mod import;
pub mod io;
pub mod pass;
pub mod pipeline;
pub mod rewrite;
pub mod route;
pub mod tile;
