//! What an operator's handler works with: the node's operands and results, and its errors.

use std::sync::Arc;

use dojoc_ir::diag::Kind;
use dojoc_ir::dim::{Dim, Poly};
use dojoc_ir::graph::ValueId;
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Type};

use super::build::bad_extent;
use super::builder::Importer;
use super::codes;
use super::problems::{NodeError, NodeResult};
use super::value::{Operand, Symbolic};
use super::wire::NodeProto;

/// Longest list of integers that is read from a constant.
const MAX_INTS: usize = 1 << 16;

/// A node of the model being imported. Handlers read operands and attributes, build nodes with the
/// methods of `build.rs`, and end with [`output`](Self::output) for every result.
pub struct NodeCx<'a, 'm> {
    pub(super) imp: &'a mut Importer<'m>,
    pub(super) node: &'m NodeProto,
    /// Version of the operator set that the node is from.
    pub version: i64,
    pub(super) inputs: Vec<Option<Operand>>,
    pub(super) outputs: Vec<Option<Operand>>,
    /// Which attributes have been asked for.
    pub(super) read: Vec<bool>,
}

impl<'a, 'm> NodeCx<'a, 'm> {
    /// Number of operands, omitted ones at the end not counted.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Number of results that the node declares.
    pub fn output_count(&self) -> usize {
        self.node.output.len()
    }

    /// Whether an operand is there.
    pub fn has(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(Option::is_some)
    }

    /// Whether a result is asked for.
    pub fn wanted(&self, index: usize) -> bool {
        self.node.output.get(index).is_some_and(|n| !n.is_empty())
    }

    pub(super) fn operand(&self, index: usize) -> Option<&Operand> {
        self.inputs.get(index)?.as_ref()
    }

    /// A required operand.
    ///
    /// # Errors
    /// When it is omitted.
    pub fn input(&mut self, index: usize) -> NodeResult<ValueId> {
        match self.optional(index)? {
            Some(value) => Ok(value),
            None => Err(NodeError::invalid(format!("operand {index} is missing"))),
        }
    }

    /// An operand that may be omitted.
    ///
    /// # Errors
    /// When it is made of extents in a way that cannot be computed.
    pub fn optional(&mut self, index: usize) -> NodeResult<Option<ValueId>> {
        match self.operand(index).cloned() {
            Some(operand) => {
                let value = self.imp.materialize(&operand)?;
                // Materialised once per node.
                self.inputs[index] = Some(Operand::Value(value));
                Ok(Some(value))
            }
            None => Ok(None),
        }
    }

    /// All operands; none may be omitted.
    ///
    /// # Errors
    /// When one is.
    pub fn all_inputs(&mut self) -> NodeResult<Vec<ValueId>> {
        (0..self.input_count()).map(|n| self.input(n)).collect()
    }

    /// Checks the number of operands.
    ///
    /// # Errors
    /// When there are fewer than `least` or more than `most`.
    pub fn expect_inputs(&self, least: usize, most: usize) -> NodeResult {
        let count = self.input_count();
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let range = if least == most {
            format!("{least}")
        } else {
            format!("{least} to {most}")
        };
        Err(NodeError::invalid(format!(
            "expected {range} operands, found {count}"
        )))
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> Type {
        self.imp.b.ty(value).clone()
    }

    /// The element type of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.imp.b.ty(value).dtype
    }

    /// The rank of a value.
    pub fn rank(&self, value: ValueId) -> usize {
        self.imp.b.ty(value).rank()
    }

    /// The extents of a value.
    pub fn dims(&self, value: ValueId) -> Vec<Dim> {
        self.imp.b.ty(value).dims().to_vec()
    }

    /// The type of an operand, also of one that has no value yet.
    pub fn input_type(&self, index: usize) -> Option<Type> {
        Some(match self.operand(index)? {
            Operand::Value(value) => self.ty(*value),
            Operand::Symbolic(symbolic) if symbolic.scalar => Type::scalar(symbolic.dtype),
            Operand::Symbolic(symbolic) => {
                Type::of(symbolic.dtype, &[symbolic.values.len() as u64])
            }
        })
    }

    /// The type of a required operand.
    ///
    /// # Errors
    /// When it is omitted.
    pub fn required_type(&self, index: usize) -> NodeResult<Type> {
        self.input_type(index)
            .ok_or_else(|| NodeError::invalid(format!("operand {index} is missing")))
    }

    /// The value of an operand that is a constant, of any size; its bytes are not copied.
    pub fn const_tensor(&self, index: usize) -> Option<Tensor> {
        match self.operand(index)? {
            Operand::Value(value) => self.imp.const_of(*value),
            Operand::Symbolic(_) => None,
        }
    }

    /// The value of a value that is a constant.
    pub fn const_of(&self, value: ValueId) -> Option<Tensor> {
        self.imp.const_of(value)
    }

    /// The integers of an operand that is a constant scalar or vector of integers.
    pub fn const_ints(&self, index: usize) -> Option<Vec<i64>> {
        match self.operand(index)? {
            Operand::Value(_) => {
                let tensor = self.const_tensor(index)?;
                let list = tensor.rank() <= 1
                    && tensor.len() <= MAX_INTS
                    && (tensor.dtype().is_int() || tensor.dtype() == DType::Bool);
                list.then(|| tensor.to_i64s())
            }
            Operand::Symbolic(symbolic) => symbolic.values.iter().map(Poly::as_constant).collect(),
        }
    }

    /// The numbers of an operand that is a constant scalar or vector.
    pub fn const_floats(&self, index: usize) -> Option<Vec<f64>> {
        let tensor = self.const_tensor(index)?;
        (tensor.rank() <= 1 && tensor.len() <= MAX_INTS).then(|| tensor.to_f64s())
    }

    /// The integers of an operand that is known up to the extents of inputs.
    pub fn shape_values(&self, index: usize) -> Option<Vec<Poly>> {
        match self.operand(index)? {
            Operand::Value(_) => {
                let values = self.const_ints(index)?;
                Some(values.into_iter().map(Poly::constant).collect())
            }
            Operand::Symbolic(symbolic) => Some(symbolic.values.clone()),
        }
    }

    /// The integers of a required operand that must be a constant; `what` it is, for the message.
    ///
    /// # Errors
    /// When it is omitted or computed at run time.
    pub fn require_ints(&mut self, index: usize, what: &str) -> NodeResult<Vec<i64>> {
        if !self.has(index) {
            return Err(NodeError::invalid(format!(
                "operand {index} ({what}) is missing"
            )));
        }
        self.const_ints(index)
            .ok_or_else(|| self.needs_constant(index, what))
    }

    /// The integers of an optional operand that must be a constant where it is given.
    ///
    /// # Errors
    /// When it is computed at run time.
    pub fn optional_ints(&mut self, index: usize, what: &str) -> NodeResult<Option<Vec<i64>>> {
        match self.has(index) {
            true => self.require_ints(index, what).map(Some),
            false => Ok(None),
        }
    }

    /// The integers of a required operand that must be known up to the extents of inputs.
    ///
    /// # Errors
    /// When it is omitted or computed at run time.
    pub fn require_dims(&mut self, index: usize, what: &str) -> NodeResult<Vec<Poly>> {
        if !self.has(index) {
            return Err(NodeError::invalid(format!(
                "operand {index} ({what}) is missing"
            )));
        }
        self.shape_values(index)
            .ok_or_else(|| self.needs_constant(index, what))
    }

    /// As [`require_dims`](Self::require_dims), as extents.
    ///
    /// # Errors
    /// Also when one is negative.
    pub fn require_extents(&mut self, index: usize, what: &str) -> NodeResult<Vec<Dim>> {
        let polys = self.require_dims(index, what)?;
        let dims = polys.into_iter().map(Dim::from_poly).collect::<Option<_>>();
        dims.ok_or_else(bad_extent)
    }

    /// The value of a required operand that must be a constant.
    ///
    /// # Errors
    /// When it is omitted or computed at run time.
    pub fn require_const(&mut self, index: usize, what: &str) -> NodeResult<Tensor> {
        let value = self.input(index)?;
        self.const_of(value)
            .ok_or_else(|| self.needs_constant(index, what))
    }

    /// The error for an operand that should be a constant.
    pub fn needs_constant(&self, index: usize, what: &str) -> NodeError {
        let name = self.node.input.get(index).map_or("", String::as_str);
        NodeError::new(
            codes::NEEDS_CONSTANT,
            Kind::Unsupported,
            format!("operand {index} ({what}) is computed at run time"),
        )
        .help(format!(
            "`{name}` must be a constant, or be computed from constants and shapes"
        ))
    }

    /// A dim counted from the front, of one that may be counted from the end.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn axis(&self, axis: i64, rank: usize) -> NodeResult<usize> {
        let signed = rank as i64;
        let from_front = if axis < 0 {
            axis.checked_add(signed)
        } else {
            Some(axis)
        };
        match from_front {
            Some(axis) if (0..signed).contains(&axis) => Ok(axis as usize),
            _ => Err(NodeError::invalid(format!(
                "axis {axis} is out of range for rank {rank}"
            ))),
        }
    }

    /// Dims counted from the front, all different.
    ///
    /// # Errors
    /// When one is out of range or given twice.
    pub fn axes(&self, axes: &[i64], rank: usize) -> NodeResult<Vec<usize>> {
        let mut result = vec![];
        for axis in axes {
            let axis = self.axis(*axis, rank)?;
            if result.contains(&axis) {
                return Err(NodeError::invalid(format!("axis {axis} is given twice")));
            }
            result.push(axis);
        }
        Ok(result)
    }

    /// Gives a result. Results that are not asked for may be given or not.
    pub fn output(&mut self, index: usize, value: impl Into<Operand>) {
        if let Some(slot) = self.outputs.get_mut(index) {
            *slot = Some(value.into());
        }
    }

    /// Gives a result made of integers that depend on the extents of inputs.
    pub fn output_extents(&mut self, index: usize, dtype: DType, scalar: bool, values: Vec<Poly>) {
        let symbolic = Symbolic {
            dtype,
            scalar,
            values,
        };
        self.output(index, Operand::Symbolic(Arc::new(symbolic)));
    }

    /// The extent of a data-dependent result, which is at most `natural` if that is known. A bound
    /// given by the caller for the result is taken if it is less.
    ///
    /// # Errors
    /// [`codes::NEEDS_BOUND`] when nothing bounds it.
    pub fn data_extent(&mut self, index: usize, natural: Option<u64>) -> NodeResult<Dim> {
        let name = self.node.output.get(index).cloned().unwrap_or_default();
        let given = self.imp.options.bounds.get(&name).copied();
        let bound = match (given, natural) {
            (Some(given), Some(natural)) => given.min(natural),
            (Some(bound), None) | (None, Some(bound)) => bound,
            (None, None) => {
                return Err(NodeError::new(
                    codes::NEEDS_BOUND,
                    Kind::Unsupported,
                    format!("the extent of result `{name}` depends on data and has no bound"),
                )
                .help(format!("give one: --bound {name}=N")));
            }
        };
        let symbol = if name.is_empty() { "extent" } else { &name };
        Ok(self.imp.fresh_symbol(symbol, bound))
    }
}
