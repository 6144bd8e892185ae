//! dojoc.

pub mod analysis;
pub mod emit;
pub mod graph;
pub mod import;
pub mod io;
pub mod lower;
pub mod pass;
pub mod pipeline;
pub mod place;
pub mod rewrite;
pub mod route;
pub mod tile;
