//! Rewrite rules: with the importers, the only code that knows ops by name.
//!
//! Two kinds. Rules that hold bit for bit and only make graphs smaller run node by node
//! (`identities`, `batch_norm`). Rules that are of use only together with others, or that trade
//! one cost for another, run by equality saturation: `region` cuts functions into regions, `rule`
//! grows an e-graph of each region's equal forms (`node`, `facts`), `extract` picks the cheapest by
//! the prices of `cost`, and equal regions are done once. Nothing outside this module knows of
//! e-graphs.

pub(crate) mod batch_norm;
pub mod cost;
mod extract;
mod facts;
pub mod generate;
pub(crate) mod identities;
mod node;
mod region;
pub mod rule;
pub mod rules;
mod saturate;
mod scratch;
pub(crate) mod stitch;

#[cfg(test)]
mod harness;

use dojoc_ir::ops::{Full, Op};
use dojoc_ir::scalar::Scalar;
use dojoc_ir::types::Type;

pub use facts::{Facts, Offline};
pub use saturate::RegionStats;
pub use scratch::{Scratch, Term};

/// The op that gives a tensor of a type whose elements are all `value`.
pub(crate) fn full(ty: &Type, value: Scalar) -> Op {
    let full = Full {
        dtype: ty.dtype,
        shape: ty.dims().to_vec(),
        value: value.into(),
    };
    full.into()
}
