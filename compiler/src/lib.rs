//! dojoc.

pub mod import;
pub mod io;
