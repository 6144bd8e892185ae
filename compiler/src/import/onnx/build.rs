//! Building nodes of the IR from a handler. All of it goes through `Importer::emit`: nodes get the
//! location of the model's node, and are evaluated at once where all operands are small constants.

use dojoc_ir::dim::Dim;
use dojoc_ir::graph::ValueId;
use dojoc_ir::ops::{
    Broadcast, Concat, Convert, Iota, Op, Reduce, ReduceKind, Reshape, Select, Slice, Transpose,
};
use dojoc_ir::scalar::{BinaryFn, Scalar, UnaryFn};
use dojoc_ir::tensor::Tensor;
use dojoc_ir::types::{DType, Shape};

use super::builder::Importer;
use super::node::NodeCx;
use super::problems::{NodeError, NodeResult};
use super::wire::TensorProto;

impl Importer<'_> {
    /// The number of elements of a vector of this extent, as data. Shape `[]` if `scalar`, else
    /// `[1]`.
    pub(super) fn count_ones(
        &mut self,
        dim: Dim,
        dtype: DType,
        scalar: bool,
    ) -> NodeResult<ValueId> {
        let ones = self.full(dtype, &Shape::new([dim]), Scalar::one(dtype))?;
        let sum = Reduce {
            kind: ReduceKind::Sum,
            axes: vec![0],
            keep: !scalar,
        };
        self.one(sum, &[ones])
    }

    /// Vectors one after the other.
    pub(super) fn concat_vectors(&mut self, parts: &[ValueId]) -> NodeResult<ValueId> {
        self.one(Concat { axis: 0 }, parts)
    }
}

/// The error for arithmetic on extents that does not work out.
pub fn bad_extent() -> NodeError {
    NodeError::invalid("an extent is negative or does not fit 64 bits")
}

impl NodeCx<'_, '_> {
    /// Adds a node with one result.
    ///
    /// # Errors
    /// What the op has against the operands, as for all functions here.
    pub fn op(&mut self, op: impl Into<Op>, args: &[ValueId]) -> NodeResult<ValueId> {
        self.imp.one(op, args)
    }

    /// Adds a node and returns all of its results.
    ///
    /// # Errors
    /// What the op has against the operands.
    pub fn op_results(&mut self, op: impl Into<Op>, args: &[ValueId]) -> NodeResult<Vec<ValueId>> {
        self.imp.emit(op, args, &[])
    }

    /// A function of every element.
    ///
    /// # Errors
    /// Element types that it does not take.
    pub fn unary(&mut self, f: UnaryFn, x: ValueId) -> NodeResult<ValueId> {
        self.op(f, &[x])
    }

    /// A function of the elements of two tensors, which are broadcast.
    ///
    /// # Errors
    /// Element types that it does not take or that differ; shapes that do not broadcast.
    pub fn binary(&mut self, f: BinaryFn, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.op(f, &[a, b])
    }

    /// A function of a tensor and a number, `f(a, number)`.
    ///
    /// # Errors
    /// Element types that it does not take.
    pub fn with_scalar(&mut self, f: BinaryFn, a: ValueId, number: f64) -> NodeResult<ValueId> {
        let number = self.scalar(self.dtype(a), number)?;
        self.binary(f, a, number)
    }

    /// `cond ? a : b`, all three broadcast.
    ///
    /// # Errors
    /// Types or shapes that do not fit.
    pub fn select(&mut self, cond: ValueId, a: ValueId, b: ValueId) -> NodeResult<ValueId> {
        self.op(Select {}, &[cond, a, b])
    }

    /// The same values as another element type, as ONNX `Cast` converts; nothing if it is the same.
    ///
    /// # Errors
    /// Types that do not convert.
    pub fn convert(&mut self, x: ValueId, to: DType) -> NodeResult<ValueId> {
        if self.dtype(x) == to {
            return Ok(x);
        }
        self.op(
            Convert {
                to,
                saturate: false,
            },
            &[x],
        )
    }

    /// The same elements in another shape; nothing if it is the same.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape(&mut self, x: ValueId, shape: Vec<Dim>) -> NodeResult<ValueId> {
        if self.dims(x) == shape {
            return Ok(x);
        }
        self.op(Reshape { shape }, &[x])
    }

    /// The same elements in a shape of constant extents.
    ///
    /// # Errors
    /// Another number of elements.
    pub fn reshape_to(&mut self, x: ValueId, shape: &[u64]) -> NodeResult<ValueId> {
        self.reshape(x, shape.iter().map(|d| Dim::Const(*d)).collect())
    }

    /// With dims of extent 1 at these positions of the result (ascending).
    ///
    /// # Errors
    /// Positions out of range.
    pub fn unsqueeze(&mut self, x: ValueId, axes: &[usize]) -> NodeResult<ValueId> {
        let mut dims = self.dims(x);
        for axis in axes {
            if *axis > dims.len() {
                return Err(NodeError::invalid(format!("axis {axis} is out of range")));
            }
            dims.insert(*axis, Dim::Const(1));
        }
        self.reshape(x, dims)
    }

    /// Without these dims, each of extent 1.
    ///
    /// # Errors
    /// Dims of another extent.
    pub fn squeeze(&mut self, x: ValueId, axes: &[usize]) -> NodeResult<ValueId> {
        let dims = self.dims(x);
        if let Some(axis) = axes.iter().find(|a| dims.get(**a).is_none_or(|d| !d.is(1))) {
            return Err(NodeError::invalid(format!(
                "dim {axis} has not the extent 1"
            )));
        }
        let rest = dims
            .into_iter()
            .enumerate()
            .filter(|(n, _)| !axes.contains(n));
        let shape = rest.map(|(_, d)| d).collect();
        self.reshape(x, shape)
    }

    /// Dims in another order; nothing if it is the same.
    ///
    /// # Errors
    /// What is no permutation.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> NodeResult<ValueId> {
        if perm.iter().copied().eq(0..self.rank(x)) {
            return Ok(x);
        }
        let perm = perm.to_vec();
        self.op(Transpose { perm }, &[x])
    }

    /// Two dims exchanged.
    ///
    /// # Errors
    /// Dims out of range.
    pub fn swap_dims(&mut self, x: ValueId, a: usize, b: usize) -> NodeResult<ValueId> {
        let mut perm: Vec<usize> = (0..self.rank(x)).collect();
        if a.max(b) >= perm.len() {
            return Err(NodeError::invalid(format!(
                "dims {a} and {b} are out of range"
            )));
        }
        perm.swap(a, b);
        self.transpose(x, &perm)
    }

    /// Broadcast to exactly this shape; nothing if it is the same.
    ///
    /// # Errors
    /// Shapes that do not broadcast.
    pub fn broadcast(&mut self, x: ValueId, shape: Vec<Dim>) -> NodeResult<ValueId> {
        if self.dims(x) == shape {
            return Ok(x);
        }
        self.op(Broadcast { shape }, &[x])
    }

    /// `size` elements of a dim from `start` on.
    ///
    /// # Errors
    /// What is out of range.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: u64, size: u64) -> NodeResult<ValueId> {
        let ty = self.ty(x);
        if axis >= ty.rank() {
            return Err(NodeError::invalid(format!(
                "axis {axis} is out of range for {ty}"
            )));
        }
        if start == 0 && ty.shape[axis].is(size) {
            return Ok(x);
        }
        self.op(
            Slice::along(&ty, axis, Dim::Const(start), Dim::Const(size)),
            &[x],
        )
    }

    /// A dim in reverse order.
    ///
    /// # Errors
    /// An axis out of range.
    pub fn reverse(&mut self, x: ValueId, axis: usize) -> NodeResult<ValueId> {
        let ty = self.ty(x);
        let last = ty
            .dims()
            .get(axis)
            .and_then(|d| d.offset(-1))
            .unwrap_or(Dim::Const(0));
        if ty.dims().get(axis).is_none_or(|d| d.is(0)) {
            return Ok(x);
        }
        let mut slice = Slice::along(&ty, axis, last, ty.shape[axis].clone());
        slice.step[axis] = -1;
        self.op(slice, &[x])
    }

    /// Tensors one after the other along a dim.
    ///
    /// # Errors
    /// Types that do not fit.
    pub fn concat(&mut self, parts: &[ValueId], axis: usize) -> NodeResult<ValueId> {
        match parts {
            [one] => Ok(*one),
            _ => self.op(Concat { axis }, parts),
        }
    }

    /// A reduction over dims.
    ///
    /// # Errors
    /// Types that it does not take.
    pub fn reduce(
        &mut self,
        kind: ReduceKind,
        x: ValueId,
        axes: &[usize],
        keep: bool,
    ) -> NodeResult<ValueId> {
        let axes = axes.to_vec();
        self.op(Reduce { kind, axes, keep }, &[x])
    }

    /// The mean over dims, in the element type of `x`.
    ///
    /// # Errors
    /// Types that it does not take.
    pub fn mean(&mut self, x: ValueId, axes: &[usize], keep: bool) -> NodeResult<ValueId> {
        let sum = self.reduce(ReduceKind::Sum, x, axes, keep)?;
        let count = self.extent_product(x, axes)?;
        self.binary(BinaryFn::Div, sum, count)
    }

    /// The number of elements along dims, as a scalar of the element type of `x`.
    ///
    /// # Errors
    /// Numbers above 64 bits.
    pub fn extent_product(&mut self, x: ValueId, axes: &[usize]) -> NodeResult<ValueId> {
        let dims = self.dims(x);
        let product = axes
            .iter()
            .try_fold(Dim::Const(1), |n, a| n.mul(dims.get(*a)?));
        let product = product.ok_or_else(bad_extent)?;
        let dtype = self.dtype(x);
        if let Some(product) = product.as_const() {
            return self.scalar(dtype, product as f64);
        }
        let count = self.imp.count_ones(product, DType::I64, true)?;
        self.convert(count, dtype)
    }

    /// `0, 1, 2, ...` along a dim of a tensor of this shape.
    ///
    /// # Errors
    /// An axis out of range.
    pub fn iota(&mut self, dtype: DType, shape: Vec<Dim>, axis: usize) -> NodeResult<ValueId> {
        self.op(Iota { dtype, shape, axis }, &[])
    }

    /// A constant of the module, of any size.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.imp.constant(tensor)
    }

    /// A vector of 64-bit integers.
    pub fn ints_constant(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::from_vec(&[values.len() as u64], values.to_vec()))
    }

    /// A scalar constant.
    ///
    /// # Errors
    /// None that is known.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> NodeResult<ValueId> {
        self.imp
            .full(dtype, &Shape::scalar(), Scalar::from_f64(value, dtype))
    }

    /// A tensor whose elements are all `value`.
    ///
    /// # Errors
    /// Tensors that are too large.
    pub fn full(&mut self, dtype: DType, shape: Vec<Dim>, value: Scalar) -> NodeResult<ValueId> {
        self.imp.full(dtype, &Shape::new(shape), value)
    }

    /// The weight of a tensor attribute; its bytes stay in the file.
    ///
    /// # Errors
    /// A malformed tensor.
    pub fn tensor_constant(&mut self, tensor: &TensorProto) -> NodeResult<ValueId> {
        let name = match self.node.output.first() {
            Some(name) => self.imp.scoped(name),
            None => String::new(),
        };
        self.imp.tensor_weight(tensor, &name)
    }
}
