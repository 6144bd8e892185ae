//! Recipes: how the bytes of a weight come from the user's files.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::attr::Number;
use crate::types::DType;

/// A node of a [`Recipe`]; operands are positions of earlier nodes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum RecipeNode {
    /// Bytes of a file: little-endian, row-major.
    File {
        /// Path, relative to where the program lies.
        file: Arc<str>,
        /// First byte.
        offset: u64,
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Vec<u64>,
    },
    /// Bytes that the program itself holds, for what is computed when it is compiled.
    Inline {
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Vec<u64>,
        /// Little-endian, row-major.
        data: Bytes,
    },
    /// The same number everywhere.
    Splat {
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Vec<u64>,
        /// The number.
        value: Number,
    },
    /// A box of the operand.
    Slice {
        /// Operand.
        of: u32,
        /// First index in each dimension.
        starts: Vec<u64>,
        /// Extents.
        sizes: Vec<u64>,
    },
    /// Dimensions in another order: result dimension d is operand dimension `order[d]`.
    Permute {
        /// Operand.
        of: u32,
        /// The order.
        order: Vec<u32>,
    },
    /// The same elements in row-major order under other extents.
    Reshape {
        /// Operand.
        of: u32,
        /// Extents.
        shape: Vec<u64>,
    },
    /// Operands one after the other along a dimension.
    Concat {
        /// Operands.
        of: Vec<u32>,
        /// The dimension.
        axis: u32,
    },
    /// The operand with a number around it.
    Pad {
        /// Operand.
        of: u32,
        /// Elements before, in each dimension.
        low: Vec<u64>,
        /// Elements behind, in each dimension.
        high: Vec<u64>,
        /// The number.
        value: Number,
    },
    /// Every element multiplied by the factor of its index in a dimension, rounded once to the
    /// element type, which is a float.
    Scale {
        /// Operand.
        of: u32,
        /// Operand of rank 1 and the same element type with the factors.
        by: u32,
        /// The dimension.
        axis: u32,
    },
    /// Another element type, as the `convert` op of GRAPH does it.
    Convert {
        /// Operand.
        of: u32,
        /// The element type.
        to: DType,
    },
}

/// How the loader makes a tensor: nodes in an order in which operands come first; the last one is
/// the value. The loader evaluates them for the shard it needs, not for the whole.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Recipe {
    /// The nodes.
    pub nodes: Vec<RecipeNode>,
}
