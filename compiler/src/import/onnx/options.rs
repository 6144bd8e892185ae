//! What the caller says about a model before it is imported.

use std::collections::BTreeMap;

use dojoc_ir::tensor::Tensor;

/// The extent of a symbolic dimension of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimBinding {
    /// Exactly this: `--dim N=8`.
    Exact(u64),
    /// Known at run time, and at most this: `--dim N<=8`.
    AtMost(u64),
}

/// The shape of data that the model will be run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenShape {
    /// The input it is for. Where there is no input of this name, it is for the one at the same
    /// position.
    pub name: Option<String>,
    /// Extents.
    pub shape: Vec<u64>,
}

/// Options of [`import`](super::import).
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Extents of symbolic dimensions, by name. A dimension without a name is called by its input
    /// and position: `x.0`.
    pub dims: BTreeMap<String, DimBinding>,
    /// Largest extents of data-dependent results, by the name of the value.
    pub bounds: BTreeMap<String, u64>,
    /// Shapes of inputs, by name; they replace what the model declares, which they must not
    /// contradict.
    pub shapes: BTreeMap<String, Vec<u64>>,
    /// Shapes of inputs from data at hand; they bind what the other options leave open.
    pub bind_from_inputs: Vec<GivenShape>,
    /// Values of inputs that are known: the input stays, but the importer counts on the value.
    pub constant_inputs: BTreeMap<String, Tensor>,
    /// Largest size in bytes of tensors that are computed at import.
    pub fold_limit: u64,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            dims: BTreeMap::new(),
            bounds: BTreeMap::new(),
            shapes: BTreeMap::new(),
            bind_from_inputs: vec![],
            constant_inputs: BTreeMap::new(),
            fold_limit: 64 << 10,
        }
    }
}
