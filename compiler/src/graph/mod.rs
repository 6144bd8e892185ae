//! Passes of the GRAPH level, one per file.

pub mod canonicalise;
pub mod common_subexpressions;
mod constant;
pub mod dead_code;
mod edit;
pub mod expand;
pub mod fold_batch_norm;
pub mod fold_constants;
pub mod precision;
pub mod saturate;

pub(crate) use constant::{as_constant, is_constant, splat};
pub(crate) use edit::Editor;
pub(crate) use fold_constants::draws_random_bits;
