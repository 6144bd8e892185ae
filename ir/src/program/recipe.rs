//! Recipes: how the bytes of a weight come from the user's files.
//!
//! A recipe is a tree, written in postorder: the operands of a node are the values directly before
//! it that no other node has taken, in order, and the last node takes what is left. So every node
//! but the last is used exactly once.

mod eval;
mod infer;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use eval::eval_slice;

use crate::attr::Number;
use crate::codes;
use crate::diag::Diagnostic;
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

/// How the loader makes a tensor: nodes in postorder, see the [module](self); the last one is the
/// value. The loader evaluates them for the shard it needs, not for the whole.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Recipe {
    /// The nodes.
    pub nodes: Vec<RecipeNode>,
}

/// Steps from a leaf of a recipe to its value, at most: its text nests them.
pub const MAX_RECIPE_DEPTH: usize = 256;

/// Where the bytes of files come from: this crate does no I/O.
pub trait Sources {
    /// Exactly `length` bytes of a file from `offset` on. `file` is the path as the recipe names
    /// it. Called once for each run of bytes that lie side by side, so it should be cheap: a slice
    /// of a mapped file.
    ///
    /// # Errors
    /// A file that is missing, cannot be read or is too short: [`codes::NO_DATA`].
    fn read(&self, file: &str, offset: u64, length: u64) -> Result<Bytes, Diagnostic>;
}

/// No files: for programs whose weights are computed or inline.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSources;

impl Sources for NoSources {
    fn read(&self, file: &str, _offset: u64, _length: u64) -> Result<Bytes, Diagnostic> {
        let message = format!("the file `{file}` has not been opened");
        Err(Diagnostic::input(codes::NO_DATA, message))
    }
}

impl RecipeNode {
    /// Positions of the operands, in order.
    pub fn operands(&self) -> Vec<u32> {
        match self {
            Self::File { .. } | Self::Inline { .. } | Self::Splat { .. } => Vec::new(),
            Self::Slice { of, .. }
            | Self::Permute { of, .. }
            | Self::Reshape { of, .. }
            | Self::Pad { of, .. }
            | Self::Convert { of, .. } => vec![*of],
            Self::Concat { of, .. } => of.clone(),
            Self::Scale { of, by, .. } => vec![*of, *by],
        }
    }

    /// The word in the text.
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Inline { .. } => "inline",
            Self::Splat { .. } => "splat",
            Self::Slice { .. } => "slice",
            Self::Permute { .. } => "permute",
            Self::Reshape { .. } => "reshape",
            Self::Concat { .. } => "concat",
            Self::Pad { .. } => "pad",
            Self::Scale { .. } => "scale",
            Self::Convert { .. } => "convert",
        }
    }
}

#[cfg(test)]
mod tests;
