//! What the caller decides about importing and compiling a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dojoc_compiler::import::onnx::{DimBinding, ImportOptions};
use dojoc_compiler::lower::Probes;
use dojoc_compiler::pass::{DumpAfter, Precision};
use dojoc_compiler::tile::Plan;
use dojoc_ir::diag::Diagnostic;

use crate::codes;
use crate::error::Result;

/// Options of a compilation. A builder: `CompileOptions::default().dim("N", 8)`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompileOptions {
    pub(crate) dims: BTreeMap<String, DimBinding>,
    pub(crate) bounds: BTreeMap<String, u64>,
    pub(crate) shapes: BTreeMap<String, Vec<u64>>,
    pub(crate) fold_limit: u64,
    pub(crate) verify: bool,
    pub(crate) cancel: Option<Arc<AtomicBool>>,
    pub(crate) precision: Precision,
    pub(crate) keep_precision: BTreeSet<Arc<str>>,
    pub(crate) fuel: Option<u64>,
    pub(crate) validate: Option<u64>,
    pub(crate) dump_after: DumpAfter,
    pub(crate) plan: Plan,
    pub(crate) probes: Probes,
    pub(crate) chips: Option<u64>,
    pub(crate) skipped: BTreeSet<String>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            dims: BTreeMap::new(),
            bounds: BTreeMap::new(),
            shapes: BTreeMap::new(),
            fold_limit: ImportOptions::default().fold_limit,
            verify: true,
            cancel: None,
            precision: Precision::Keep,
            keep_precision: BTreeSet::new(),
            fuel: None,
            validate: None,
            dump_after: DumpAfter::None,
            plan: Plan::default(),
            probes: Probes::default(),
            chips: None,
            skipped: BTreeSet::new(),
        }
    }
}

impl CompileOptions {
    /// Gives a symbolic dimension of the model an extent.
    #[must_use]
    pub fn dim(mut self, symbol: &str, extent: u64) -> Self {
        self.dims.insert(symbol.into(), DimBinding::Exact(extent));
        self
    }

    /// Keeps a symbolic dimension of the model open up to a bound.
    #[must_use]
    pub fn dim_at_most(mut self, symbol: &str, bound: u64) -> Self {
        self.dims.insert(symbol.into(), DimBinding::AtMost(bound));
        self
    }

    /// Bounds a data-dependent extent, by the name of the value.
    #[must_use]
    pub fn bound(mut self, value: &str, bound: u64) -> Self {
        self.bounds.insert(value.into(), bound);
        self
    }

    /// Gives an input's shape; it replaces what the model declares and must not contradict it.
    #[must_use]
    pub fn shape(mut self, input: &str, shape: &[u64]) -> Self {
        self.shapes.insert(input.into(), shape.to_vec());
        self
    }

    /// Largest size in bytes of a constant that is computed when a model is imported or compiled.
    #[must_use]
    pub fn fold_limit(mut self, bytes: u64) -> Self {
        self.fold_limit = bytes;
        self
    }

    /// Whether the IR is verified when it is made and after every pass, which is the default.
    #[must_use]
    pub fn verify(mut self, on: bool) -> Self {
        self.verify = on;
        self
    }

    /// A flag that stops the compilation when it is set.
    #[must_use]
    pub fn cancel(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// Element types of contractions; by default as the model has them.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Keeps the precision of a node, by its name or that of its result.
    #[must_use]
    pub fn keep_precision(mut self, name: &str) -> Self {
        self.keep_precision.insert(name.into());
        self
    }

    /// Number of changes that all passes together may make: the last of them is what broke a model
    /// that worked with one less.
    #[must_use]
    pub fn fuel(mut self, changes: u64) -> Self {
        self.fuel = Some(changes);
        self
    }

    /// Runs the model on random inputs of this seed before and after every pass, and at the levels
    /// TILED, MESH and PROGRAM where it is taken there; fails at the first pass or level that changes
    /// values by more than it may.
    #[must_use]
    pub fn validate(mut self, seed: u64) -> Self {
        self.validate = Some(seed);
        self
    }

    /// After which passes the model is dumped, see
    /// [`Compiler::compile_graph_with`](crate::Compiler::compile_graph_with).
    #[must_use]
    pub fn dump_after(mut self, passes: DumpAfter) -> Self {
        self.dump_after = passes;
        self
    }

    /// Pins decisions of the mapper.
    #[must_use]
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Which named values of the model can be read when the program runs; by default all.
    #[must_use]
    pub fn probes(mut self, probes: Probes) -> Self {
        self.probes = probes;
        self
    }

    /// Plans for this many chips at most; by default for all that the machine has.
    #[must_use]
    pub fn chips(mut self, chips: u64) -> Self {
        self.chips = Some(chips);
        self
    }

    /// Leaves a pass out, to see what it is worth. Lowering needs some of them.
    #[must_use]
    pub fn skip_pass(mut self, name: &str) -> Self {
        self.skipped.insert(name.into());
        self
    }

    pub(crate) fn import(&self) -> ImportOptions {
        ImportOptions {
            dims: self.dims.clone(),
            bounds: self.bounds.clone(),
            shapes: self.shapes.clone(),
            fold_limit: self.fold_limit,
            ..ImportOptions::default()
        }
    }

    /// Refuses options that only the importer of ONNX models can follow.
    pub(crate) fn check_for_text(&self) -> Result<()> {
        let flag = if !self.dims.is_empty() {
            "--dim"
        } else if !self.bounds.is_empty() {
            "--bound"
        } else if !self.shapes.is_empty() {
            "--shape"
        } else {
            return Ok(());
        };
        let message = format!("{flag} is for ONNX models; a text form states its extents itself");
        Err(Diagnostic::input(codes::BAD_OPTION, message)
            .help("edit the types and the `dims` of the module, or start from the ONNX model")
            .into())
    }
}
