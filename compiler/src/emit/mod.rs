//! From schedules of a mesh to instructions.
//!
//! [`program`] collects what a program consists of, [`fit`] writes numbers that differ from core to
//! core as formulas. [`exchange`] moves data between cores, [`shards`] says where tensors of the host lie. [`builder`] makes a segment: buffers, views, streams and the tokens between
//! them. [`kernel`] writes into it the instructions that compute a block of a loop nest whose data
//! is in the core's SRAM.

pub mod builder;
pub mod compute;
pub mod exchange;
pub mod fit;
pub mod kernel;
pub mod program;
pub mod shards;
pub mod tensors;

use std::fmt;

/// Why something cannot be made into instructions: a clause that names the op's part, function or
/// element type for which there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported(pub String);

impl Unsupported {
    /// With this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// An address or extent beyond 64 bits.
    pub(crate) fn overflow() -> Self {
        Self::new("an address or extent exceeds 64 bits")
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}
