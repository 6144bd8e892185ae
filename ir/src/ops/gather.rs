//! Elements at places that other tensors give.

use super::movement::{check_index, may_reach, resolve_index, runs, split, take, zeros_like};
use super::{
    Concat, EvalCx, EvalError, GradCx, Grads, Iota, NoGrad, OpDef, Reshape, Sample,
    ScatterElements, ScatterKind, ScatterNd, Transpose, TypeError, arity, check_axis,
};
use crate::access::{Kernel, KernelFn, Tiling};
use crate::dim::Dim;
use crate::graph::{FunctionBuilder, RegionType, ValueId};
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, indices, ravel, strides};
use crate::types::{DType, Shape, Type};

op_struct! {
    /// Slices of x at the given indices of a dim: operands (x, indices) and
    /// `out[.., i.., ..] = x[.., indices[i..], ..]`, so that the dims of `indices` stand in place
    /// of the dim `axis`.
    ///
    /// Indices are i32 or i64, negative ones count from the end, and one out of range is an error.
    Gather {
        /// The dim of x that is indexed.
        axis: usize,
    }
}

op_struct! {
    /// Elements of x at an index of one dim each: operands (x, indices) of equal rank and
    /// `out[i_0, .., i_axis, ..] = x[i_0, .., indices[i_0, .., i_axis, ..], ..]`. The result has
    /// the shape of `indices`, whose other extents are at most those of x.
    ///
    /// Indices are i32 or i64, negative ones count from the end, and one out of range is an error.
    GatherElements {
        /// The dim of x that is indexed.
        axis: usize,
    }
}

op_struct! {
    /// Slices of x at index tuples: operands (x, indices [batch.., m.., k]) and
    /// `out[b.., m.., s..] = x[b.., indices[b.., m.., 0], .., indices[b.., m.., k - 1], s..]`.
    /// The first `batch` dims of both operands are equal; k is a constant.
    ///
    /// Indices are i32 or i64, negative ones count from the end, and one out of range is an error.
    GatherNd {
        /// Number of leading dims that are batched.
        batch: usize,
    }
}

/// The gradient of taking slices of dim `axis` of `x` at `places` [n.., 1], of which `grad` has the
/// n.. in place of that dim.
pub(crate) fn scatter_slices(
    b: &mut FunctionBuilder,
    x: ValueId,
    axis: usize,
    places: ValueId,
    grad: ValueId,
) -> Result<ValueId, TypeError> {
    let (ty, counted) = (b.ty(x).clone(), b.ty(places).rank() - 1);
    let rank = b.ty(grad).rank();
    let perm = (axis..axis + counted)
        .chain(0..axis)
        .chain(axis + counted..rank);
    let updates = b.op(
        Transpose {
            perm: perm.collect(),
        },
        &[grad],
    )?;
    let in_front = Transpose::moving(ty.rank(), axis, 0);
    let shape = Shape::new(in_front.perm.iter().map(|d| ty.shape[*d].clone()));
    let zeros = b.full(ty.dtype, &shape, Scalar::zero(ty.dtype));
    let combine = ScatterKind::Add;
    let sum = b.op(ScatterNd { combine }, &[zeros, places, updates])?;
    b.op(in_front.inverse(), &[sum])
}

/// A value with another dim of extent 1 at the end.
pub(crate) fn with_unit_dim(b: &mut FunctionBuilder, x: ValueId) -> Result<ValueId, TypeError> {
    let mut shape = b.ty(x).dims().to_vec();
    shape.push(Dim::Const(1));
    b.op(Reshape { shape }, &[x])
}

impl OpDef for Gather {
    const NAMES: &'static [&'static str] = &["gather"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, indices] = arity(args)?;
        check_axis(self.axis, x)?;
        check_index(indices)?;
        let (before, after) = (&x.dims()[..self.axis], &x.dims()[self.axis + 1..]);
        let dims = before.iter().chain(indices.dims()).chain(after);
        Ok(vec![Type::new(x.dtype, Shape::new(dims.cloned()))])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, indices) = (&args[0], &args[1]);
        let resolve = |index| resolve_index(index, x.shape()[self.axis]);
        let chosen = indices
            .scalars()
            .map(resolve)
            .collect::<Result<Vec<u64>, _>>()?;
        Ok(vec![take(x, self.axis, &chosen, indices.shape())])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, indices) = (args[0].rank(), args[1].rank());
        let of_x = (0..x).filter(|d| *d != self.axis).map(|d| {
            let result = if d < self.axis { d } else { d + indices - 1 };
            split(format!("x{d}"), &[Some(d), None], &[result])
        });
        let of_indices =
            (0..indices).map(|d| split(format!("i{d}"), &[None, Some(d)], &[self.axis + d]));
        Tiling::Kernel(Kernel {
            function: KernelFn::Gather { axis: self.axis },
            dims: of_x.chain(of_indices).collect(),
            index_operands: vec![1],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let places = with_unit_dim(cx.b, cx.args[1])?;
        let grad = scatter_slices(cx.b, cx.args[0], self.axis, places, cx.cotangents[0])?;
        Ok(vec![Some(grad), None])
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, dtype, x: &[u64], index, indices: &[u64]| {
            let last = x[axis] as f64 - 1.0;
            Sample::new(
                Gather { axis },
                &[Type::of(dtype, x), Type::of(index, indices)],
            )
            .range(1, -last - 1.0, last)
        };
        vec![
            sample(0, DType::F32, &[5, 3], DType::I64, &[4]),
            sample(1, DType::F32, &[2, 4, 3], DType::I32, &[2, 3]),
            sample(2, DType::Bf16, &[2, 1, 4], DType::I64, &[3]),
            sample(0, DType::I64, &[6], DType::I64, &[]),
            sample(1, DType::F32, &[3, 4], DType::I32, &[]),
            sample(0, DType::Bool, &[3, 2], DType::I64, &[0]),
            sample(0, DType::F32, &[3, 0], DType::I64, &[2]),
        ]
    }
}

impl OpDef for GatherElements {
    const NAMES: &'static [&'static str] = &["gather_elements"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, indices] = arity(args)?;
        check_elements(self.axis, x, indices)?;
        Ok(vec![Type::new(x.dtype, indices.shape.clone())])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, indices) = (&args[0], &args[1]);
        let places = element_places(x.shape(), indices, self.axis)?;
        let places = places.into_iter().map(Some);
        Ok(vec![x.select(
            indices.shape(),
            places,
            Scalar::zero(x.dtype()),
        )])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, indices) = (&args[0], &args[1]);
        let mut dims = vec![split("i".into(), &[None, Some(self.axis)], &[self.axis])];
        for d in (0..x.rank()).filter(|d| *d != self.axis && x.shape[*d] == indices.shape[*d]) {
            dims.push(split(format!("d{d}"), &[Some(d), Some(d)], &[d]));
        }
        Tiling::Kernel(Kernel {
            function: KernelFn::GatherElements { axis: self.axis },
            dims,
            index_operands: vec![1],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let zeros = zeros_like(cx.b, cx.args[0]);
        let scatter = ScatterElements {
            axis: self.axis,
            combine: ScatterKind::Add,
        };
        let sum = cx.b.op(scatter, &[zeros, cx.args[1], cx.cotangents[0]])?;
        Ok(vec![Some(sum), None])
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, dtype, x: &[u64], index, indices: &[u64]| {
            let last = x[axis] as f64 - 1.0;
            let types = [Type::of(dtype, x), Type::of(index, indices)];
            Sample::new(GatherElements { axis }, &types).range(1, -last - 1.0, last)
        };
        vec![
            sample(0, DType::F32, &[4, 3], DType::I64, &[2, 3]),
            sample(1, DType::F32, &[4, 3], DType::I32, &[2, 5]),
            sample(2, DType::Bf16, &[2, 3, 4], DType::I64, &[2, 3, 1]),
            sample(0, DType::I64, &[5], DType::I64, &[3]),
            sample(1, DType::Bool, &[3, 2], DType::I32, &[0, 2]),
        ]
    }
}

/// Checks the operands of an op that addresses single elements along `axis`.
pub(crate) fn check_elements(axis: usize, x: &Type, indices: &Type) -> Result<(), TypeError> {
    check_axis(axis, x)?;
    check_index(indices)?;
    if x.rank() != indices.rank() {
        type_error!("{x} and the indices {indices} have different ranks");
    }
    let fits = |d: usize| d == axis || may_reach(&indices.shape[d], &x.shape[d]);
    if let Some(d) = (0..x.rank()).find(|d| !fits(*d)) {
        type_error!("dim {d} of the indices {indices} is larger than that of {x}");
    }
    Ok(())
}

/// For every element of `indices` the row-major position in a tensor of `shape` of the same index
/// with the one along `axis` replaced.
pub(crate) fn element_places(
    shape: &[u64],
    places: &Tensor,
    axis: usize,
) -> Result<Vec<usize>, EvalError> {
    let replaced = |(mut index, place): (Vec<u64>, Scalar)| {
        index[axis] = resolve_index(place, shape[axis])?;
        Ok(ravel(&index, shape) as usize)
    };
    indices(places.shape())
        .zip(places.scalars())
        .map(replaced)
        .collect()
}

/// For every tuple of `indices` the row-major position of the slice that it addresses, in a tensor
/// of `shape` whose first `batch` dims go along with those of `indices`.
pub(crate) fn slice_places(
    shape: &[u64],
    indices: &Tensor,
    batch: usize,
) -> Result<Vec<u64>, EvalError> {
    let (counts, depth) = indices.shape().split_at(indices.rank() - 1);
    let (depth, strides) = (depth[0] as usize, strides(shape));
    let mut values = indices.scalars();
    let place = |index: Vec<u64>| {
        let batched = index[..batch]
            .iter()
            .zip(&strides)
            .map(|(i, stride)| i * stride);
        let mut at: u64 = batched.sum();
        for dim in batch..batch + depth {
            let value = values.next().unwrap_or(Scalar::Int(0));
            at += resolve_index(value, shape[dim])? * strides[dim];
        }
        Ok(at)
    };
    crate::tensor::indices(counts).map(place).collect()
}

/// The constant number of indices in a tuple: the last extent.
pub(crate) fn tuple_size(indices: &Type) -> Result<usize, TypeError> {
    match indices.dims().last().and_then(Dim::as_const) {
        Some(size) => Ok(size as usize),
        None => type_error!("the last extent of the indices {indices} must be a constant"),
    }
}

impl OpDef for GatherNd {
    const NAMES: &'static [&'static str] = &["gather_nd"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, indices] = arity(args)?;
        check_index(indices)?;
        let depth = tuple_size(indices)?;
        let counts = indices.rank() - 1;
        if self.batch > counts.min(x.rank()) || depth > x.rank() - self.batch {
            type_error!(
                "{indices} does not index {x} after {} batch dims",
                self.batch
            );
        }
        if x.dims()[..self.batch] != indices.dims()[..self.batch] {
            type_error!("the batch dims of {x} and {indices} differ");
        }
        let sliced = &x.dims()[self.batch + depth..];
        let dims = indices.dims()[..counts].iter().chain(sliced);
        Ok(vec![Type::new(x.dtype, Shape::new(dims.cloned()))])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, indices) = (&args[0], &args[1]);
        let (counts, depth) = indices.shape().split_at(indices.rank() - 1);
        let sliced = &x.shape()[self.batch + depth[0] as usize..];
        let length: u64 = sliced.iter().product();
        let places = slice_places(x.shape(), indices, self.batch)?;
        let shape = [counts, sliced].concat();
        Ok(vec![runs(x, &shape, places.into_iter(), length)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, counts) = (&args[0], args[1].rank() - 1);
        let depth = tuple_size(&args[1]).unwrap_or(0);
        let mut dims = vec![];
        for d in 0..counts {
            let of_x = (d < self.batch).then_some(d);
            dims.push(split(format!("i{d}"), &[of_x, Some(d)], &[d]));
        }
        for (n, d) in (self.batch + depth..x.rank()).enumerate() {
            dims.push(split(format!("x{d}"), &[Some(d), None], &[counts + n]));
        }
        Tiling::Kernel(Kernel {
            function: KernelFn::GatherNd { batch: self.batch },
            dims,
            index_operands: vec![1],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        // Batch dims become part of the tuples, because a scatter has none.
        let ty = cx.b.ty(cx.args[1]).clone();
        let mut shape = ty.dims()[..ty.rank() - 1].to_vec();
        shape.push(Dim::Const(1));
        let mut parts = vec![];
        for axis in 0..self.batch {
            let (dtype, shape) = (ty.dtype, shape.clone());
            parts.push(cx.b.op(Iota { dtype, shape, axis }, &[])?);
        }
        parts.push(cx.args[1]);
        let axis = ty.rank() - 1;
        let places = cx.b.op(Concat { axis }, &parts)?;
        let zeros = zeros_like(cx.b, cx.args[0]);
        let combine = ScatterKind::Add;
        let sum =
            cx.b.op(ScatterNd { combine }, &[zeros, places, cx.cotangents[0]])?;
        Ok(vec![Some(sum), None])
    }

    fn samples() -> Vec<Sample> {
        let sample = |batch, dtype, x: &[u64], index, indices: &[u64], last: f64| {
            let types = [Type::of(dtype, x), Type::of(index, indices)];
            Sample::new(GatherNd { batch }, &types).range(1, -last - 1.0, last)
        };
        vec![
            sample(0, DType::F32, &[3, 4], DType::I64, &[5, 2], 2.0),
            sample(0, DType::F32, &[3, 2, 2], DType::I32, &[2, 3, 1], 2.0),
            sample(1, DType::F32, &[2, 3, 4], DType::I64, &[2, 3, 1], 2.0),
            sample(2, DType::Bf16, &[2, 2, 3], DType::I64, &[2, 2, 1], 2.0),
            sample(0, DType::I64, &[3, 4], DType::I64, &[2, 0], 0.0),
            sample(0, DType::Bool, &[4], DType::I32, &[1], 3.0),
            sample(0, DType::F32, &[2, 0], DType::I64, &[0, 1], 1.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;

    fn eval(op: impl Into<Op>, args: &[Tensor]) -> Result<Vec<i64>, EvalError> {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let results = op.into().eval(args, &mut EvalCx::new(&mut none))?;
        Ok(results[0].to_i64s())
    }

    fn tensor(shape: &[u64], values: &[i64]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    #[test]
    fn negative_indices_count_from_the_end_and_others_are_errors() {
        let x = tensor(&[3], &[10, 20, 30]);
        let at = |index: i64| {
            let flat = tensor(&[1], &[index]);
            let results = [
                eval(Gather { axis: 0 }, &[x.clone(), flat.clone()]),
                eval(GatherElements { axis: 0 }, &[x.clone(), flat.clone()]),
                eval(GatherNd { batch: 0 }, &[x.clone(), flat]),
            ];
            assert!(results.iter().all(|r| *r == results[0]), "{results:?}");
            results[0].clone().ok()
        };
        assert_eq!(at(2), Some(vec![30]));
        assert_eq!(at(-3), Some(vec![10]));
        for index in [3, -4, i64::MAX, i64::MIN] {
            assert_eq!(at(index), None, "{index}");
        }
        let none = tensor(&[0], &[]);
        let zero = tensor(&[1], &[0]);
        assert!(eval(Gather { axis: 0 }, &[none, zero]).is_err());
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let f = |shape: &[u64]| Type::of(DType::F32, shape);
        let i = |shape: &[u64]| Type::of(DType::I64, shape);
        let gather = |args: &[Type]| Gather { axis: 1 }.infer(args, &[]);
        assert!(gather(&[f(&[2]), i(&[])]).is_err(), "axis");
        assert!(gather(&[f(&[2, 3]), f(&[])]).is_err(), "index type");
        let elements = |args: &[Type]| GatherElements { axis: 1 }.infer(args, &[]);
        assert!(elements(&[f(&[2, 3]), i(&[3, 1])]).is_err(), "more rows");
        assert!(elements(&[f(&[2, 3]), i(&[3])]).is_err(), "rank");
        let nd = |batch, args: &[Type]| GatherNd { batch }.infer(args, &[]);
        assert!(nd(0, &[f(&[2, 3]), i(&[1, 3])]).is_err(), "tuples too long");
        assert!(nd(1, &[f(&[2, 3]), i(&[3, 1])]).is_err(), "batch");
        assert!(nd(1, &[f(&[2, 3]), i(&[1])]).is_err(), "no batch dim");
        assert!(nd(0, &[f(&[2, 3]), i(&[])]).is_err(), "no tuples");
        assert!(
            nd(1, &[f(&[]), i(&[2, 0])]).is_err(),
            "a scalar has no batch"
        );
    }
}
