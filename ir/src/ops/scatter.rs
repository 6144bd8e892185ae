//! Changes at places that other tensors give.

use super::gather::{check_elements, element_places, slice_places, tuple_size};
use super::movement::{check_index, split, zeros_like};
use super::{
    EvalCx, EvalError, GatherElements, GatherNd, GradCx, Grads, Iota, NoGrad, Op, OpDef, Reshape,
    Sample, Select, TypeError, arity,
};
use crate::access::{Kernel, KernelFn, Tiling};
use crate::graph::RegionType;
use crate::scalar::{BinaryFn, Scalar};
use crate::tensor::{Element, Tensor};
use crate::types::{Class, DType, Type};
use crate::{attr_enum, op_struct, with_element};

attr_enum! {
    /// What an update does with the element that is there.
    ScatterKind {
        /// Replaces it.
        Assign "assign",
        /// Is added to it.
        Add "add",
        /// Is multiplied with it.
        Mul "mul",
        /// The larger stays; for bool, whether either is true.
        Max "max",
        /// The smaller stays; for bool, whether both are true.
        Min "min",
    }
}

impl ScatterKind {
    fn check(self, dtype: DType) -> Result<(), TypeError> {
        let ok = match dtype.class() {
            Class::Int { .. } | Class::Float => true,
            Class::Bool => !matches!(self, ScatterKind::Add | ScatterKind::Mul),
            Class::Configurable => self == ScatterKind::Assign,
        };
        if !ok {
            type_error!("elements of {dtype} can not be combined in this way");
        }
        Ok(())
    }

    /// How an update is combined with the element that is there; `None` if it replaces it.
    fn function(self, dtype: DType) -> Option<BinaryFn> {
        match self {
            ScatterKind::Assign => None,
            ScatterKind::Add => Some(BinaryFn::Add),
            ScatterKind::Mul => Some(BinaryFn::Mul),
            ScatterKind::Max if dtype == DType::Bool => Some(BinaryFn::Or),
            ScatterKind::Min if dtype == DType::Bool => Some(BinaryFn::And),
            ScatterKind::Max => Some(BinaryFn::Max),
            ScatterKind::Min => Some(BinaryFn::Min),
        }
    }

    fn combine(self, dtype: DType, old: Scalar, new: Scalar) -> Scalar {
        match self.function(dtype) {
            None => new,
            Some(f) => f.apply(old, new, dtype),
        }
    }

    /// `x` with one update after the other combined in, each at its place.
    fn update(self, x: &Tensor, updates: &Tensor, places: impl Iterator<Item = usize>) -> Tensor {
        let dtype = x.dtype();
        with_element!(dtype, T => {
            let mut data = x.stored::<T>().into_owned();
            for (place, new) in places.zip(updates.scalars()) {
                let old = data[place].load();
                let old = if dtype == DType::Bool { Scalar::Bool(old.to_bool()) } else { old };
                data[place] = <T as Element>::store(self.combine(dtype, old, new));
            }
            Tensor::from_stored(dtype, x.shape(), data)
        })
    }
}

op_struct! {
    /// x with updates of single elements combined in: operands (x, indices, updates) of equal rank,
    /// `indices` and `updates` of equal shape, and for every i in row-major order
    /// `out[i_0, .., indices[i], ..]` is combined with `updates[i]`, the index standing at dim
    /// `axis`. The other extents of `updates` are at most those of x.
    ///
    /// Indices are i32 or i64, negative ones count from the end, and one out of range is an error.
    /// Of several updates of one element `assign` keeps the last; the others combine all of them,
    /// rounding to the element type each time.
    ScatterElements {
        /// The dim of x that is indexed.
        axis: usize,
        /// What an update does.
        combine: ScatterKind,
    }
}

op_struct! {
    /// x with updates of slices combined in: operands (x, indices [m.., k], updates) and for every
    /// m in row-major order `out[indices[m.., 0], .., indices[m.., k - 1], s..]` is combined with
    /// `updates[m.., s..]`. k is a constant.
    ///
    /// Indices are i32 or i64, negative ones count from the end, and one out of range is an error.
    /// Of several updates of one element `assign` keeps the last; the others combine all of them,
    /// rounding to the element type each time.
    ScatterNd {
        /// What an update does.
        combine: ScatterKind,
    }
}

/// The gradients of a scatter with respect to (x, indices, updates). `assign` is the op with the
/// combination [`ScatterKind::Assign`], `gather` the op that reads what it writes.
fn gradients(
    cx: &mut GradCx<'_>,
    combine: ScatterKind,
    assign: Op,
    gather: Op,
) -> Result<Grads, NoGrad> {
    let (indices, updates, grad) = (cx.args[1], cx.args[2], cx.cotangents[0]);
    match combine {
        ScatterKind::Add => {
            let taken = cx.b.op(gather, &[grad, indices])?;
            Ok(vec![Some(grad), None, Some(taken)])
        }
        ScatterKind::Assign => {
            let zeros = zeros_like(cx.b, updates);
            let kept = cx.b.op(assign.clone(), &[grad, indices, zeros])?;
            // Only the last update of an element counts: the one whose number is found at its
            // place after the numbers of all updates have been scattered.
            let (x, updates) = (cx.b.ty(cx.args[0]).clone(), cx.b.ty(updates).clone());
            let Some(count) = updates.shape.elements() else {
                return Err(TypeError::new("the updates do not fit 64 bits").into());
            };
            let iota = Iota {
                dtype: DType::I64,
                shape: vec![count],
                axis: 0,
            };
            let shape = updates.dims().to_vec();
            let flat = cx.b.op(iota, &[])?;
            let numbers = cx.b.op(Reshape { shape }, &[flat])?;
            let nobody = cx.b.full(DType::I64, &x.shape, Scalar::Int(-1));
            let last = cx.b.op(assign, &[nobody, indices, numbers])?;
            let last = cx.b.op(gather.clone(), &[last, indices])?;
            let counts = cx.b.op(BinaryFn::Eq, &[last, numbers])?;
            let taken = cx.b.op(gather, &[grad, indices])?;
            let taken = cx.b.op(Select {}, &[counts, taken, zeros])?;
            Ok(vec![Some(kept), None, Some(taken)])
        }
        ScatterKind::Mul | ScatterKind::Max | ScatterKind::Min => Err(NoGrad::NoRule),
    }
}

fn same_elements(x: &Type, updates: &Type) -> Result<(), TypeError> {
    if x.dtype != updates.dtype {
        type_error!("{x} and the updates {updates} have different element types");
    }
    Ok(())
}

impl OpDef for ScatterElements {
    const NAMES: &'static [&'static str] = &["scatter_elements"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, indices, updates] = arity(args)?;
        check_elements(self.axis, x, indices)?;
        same_elements(x, updates)?;
        self.combine.check(x.dtype)?;
        if indices.shape != updates.shape {
            type_error!("the indices {indices} and the updates {updates} have different shapes");
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let places = element_places(args[0].shape(), &args[1], self.axis)?;
        Ok(vec![self.combine.update(
            &args[0],
            &args[2],
            places.into_iter(),
        )])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, indices) = (&args[0], &args[1]);
        let dims = (0..x.rank())
            .filter(|d| *d != self.axis && x.shape[*d] == indices.shape[*d])
            .map(|d| split(format!("d{d}"), &[Some(d); 3], &[d]))
            .collect();
        Tiling::Kernel(Kernel {
            function: KernelFn::ScatterElements {
                axis: self.axis,
                combine: self.combine.function(x.dtype),
            },
            dims,
            index_operands: vec![1],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let (axis, combine) = (self.axis, ScatterKind::Assign);
        let assign = ScatterElements { axis, combine }.into();
        gradients(cx, self.combine, assign, GatherElements { axis }.into())
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, combine, dtype, x: &[u64], index, updates: &[u64]| {
            let last = x[axis] as f64 - 1.0;
            let types = [
                Type::of(dtype, x),
                Type::of(index, updates),
                Type::of(dtype, updates),
            ];
            Sample::new(ScatterElements { axis, combine }, &types).range(1, -last - 1.0, last)
        };
        use ScatterKind::{Add, Assign, Max, Min, Mul};
        vec![
            sample(0, Assign, DType::F32, &[4, 3], DType::I64, &[6, 3]),
            sample(1, Add, DType::F32, &[3, 4], DType::I32, &[3, 7]),
            sample(1, Add, DType::F32, &[3, 4], DType::I64, &[2, 2]),
            sample(0, Mul, DType::F32, &[3], DType::I64, &[5]),
            sample(2, Max, DType::Bf16, &[2, 2, 3], DType::I64, &[2, 2, 4]),
            sample(1, Add, DType::Bf16, &[2, 2], DType::I64, &[2, 6]),
            sample(0, Min, DType::I64, &[3, 2], DType::I32, &[4, 2]),
            sample(0, Max, DType::Bool, &[4], DType::I64, &[3]),
            sample(0, Min, DType::Bool, &[4], DType::I64, &[3]),
            sample(0, Assign, DType::Cfp8E5M2, &[4], DType::I64, &[2]),
            sample(1, Assign, DType::F32, &[2, 3], DType::I64, &[0, 2]),
        ]
    }
}

impl OpDef for ScatterNd {
    const NAMES: &'static [&'static str] = &["scatter_nd"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, indices, updates] = arity(args)?;
        check_index(indices)?;
        same_elements(x, updates)?;
        self.combine.check(x.dtype)?;
        let depth = tuple_size(indices)?;
        if depth > x.rank() {
            type_error!("tuples of {indices} are longer than the rank of {x}");
        }
        let counts = &indices.dims()[..indices.rank() - 1];
        if !counts.iter().chain(&x.dims()[depth..]).eq(updates.dims()) {
            type_error!("updates {updates} do not fit {x} at indices {indices}");
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, indices) = (&args[0], &args[1]);
        let depth = indices.shape().last().map_or(0, |d| *d as usize);
        let length: u64 = x.shape()[depth..].iter().product();
        let slices = slice_places(x.shape(), indices, 0)?;
        let places = slices
            .into_iter()
            .flat_map(|at| (at..at + length).map(|p| p as usize));
        Ok(vec![self.combine.update(x, &args[2], places)])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let (x, counts) = (&args[0], args[1].rank() - 1);
        let depth = tuple_size(&args[1]).unwrap_or(0);
        let dims = (depth..x.rank())
            .map(|d| {
                split(
                    format!("d{d}"),
                    &[Some(d), None, Some(counts + d - depth)],
                    &[d],
                )
            })
            .collect();
        Tiling::Kernel(Kernel {
            function: KernelFn::ScatterNd {
                combine: self.combine.function(x.dtype),
            },
            dims,
            index_operands: vec![1],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let combine = ScatterKind::Assign;
        let assign = ScatterNd { combine }.into();
        gradients(cx, self.combine, assign, GatherNd { batch: 0 }.into())
    }

    fn samples() -> Vec<Sample> {
        let sample = |combine, dtype, x: &[u64], index, indices: &[u64], last: f64| {
            let depth = indices[indices.len() - 1] as usize;
            let updates = [&indices[..indices.len() - 1], &x[depth..]].concat();
            let types = [
                Type::of(dtype, x),
                Type::of(index, indices),
                Type::of(dtype, &updates),
            ];
            Sample::new(ScatterNd { combine }, &types).range(1, -last - 1.0, last)
        };
        use ScatterKind::{Add, Assign, Max, Min, Mul};
        vec![
            sample(Assign, DType::F32, &[3, 2], DType::I64, &[5, 1], 2.0),
            sample(Assign, DType::F32, &[2, 3], DType::I64, &[7, 2], 1.0),
            sample(Add, DType::F32, &[3, 2, 2], DType::I32, &[2, 3, 1], 2.0),
            sample(Add, DType::F32, &[2, 2], DType::I64, &[3, 0], 0.0),
            sample(Mul, DType::I64, &[4], DType::I64, &[3, 1], 3.0),
            sample(Max, DType::Bf16, &[3, 4], DType::I64, &[2, 1], 2.0),
            sample(Min, DType::Bool, &[3, 2], DType::I32, &[4, 1], 2.0),
            sample(Add, DType::F32, &[], DType::I64, &[0], 0.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(op: impl Into<Op>, args: &[Tensor]) -> Result<Vec<i64>, EvalError> {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let results = op.into().eval(args, &mut EvalCx::new(&mut none))?;
        Ok(results[0].to_i64s())
    }

    fn tensor(shape: &[u64], values: &[i64]) -> Tensor {
        Tensor::from_vec(shape, values.to_vec())
    }

    #[test]
    fn duplicates_combine_in_order() {
        let run = |combine| {
            let x = tensor(&[3], &[1, 2, 3]);
            let updates = tensor(&[4], &[10, 20, 5, -4]);
            let elements = tensor(&[4], &[1, 1, -1, 1]);
            let tuples = tensor(&[4, 1], &[1, 1, -1, 1]);
            let a = eval(
                ScatterElements { axis: 0, combine },
                &[x.clone(), elements, updates.clone()],
            );
            let b = eval(ScatterNd { combine }, &[x, tuples, updates]);
            assert_eq!(a, b);
            a.unwrap()
        };
        assert_eq!(run(ScatterKind::Assign), [1, -4, 5]);
        assert_eq!(run(ScatterKind::Add), [1, 28, 8]);
        assert_eq!(run(ScatterKind::Mul), [1, -1600, 15]);
        assert_eq!(run(ScatterKind::Max), [1, 20, 5]);
        assert_eq!(run(ScatterKind::Min), [1, -4, 3]);
    }

    #[test]
    fn indices_out_of_range_are_errors() {
        let combine = ScatterKind::Add;
        for index in [3, -4, i64::MIN] {
            let (x, update) = (tensor(&[3], &[1, 2, 3]), tensor(&[1], &[1]));
            let flat = tensor(&[1], &[index]);
            let args = [x.clone(), flat, update.clone()];
            assert!(eval(ScatterElements { axis: 0, combine }, &args).is_err());
            let tuple = tensor(&[1, 1], &[index]);
            assert!(eval(ScatterNd { combine }, &[x, tuple, update]).is_err());
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let f = |shape: &[u64]| Type::of(DType::F32, shape);
        let i = |shape: &[u64]| Type::of(DType::I64, shape);
        let combine = ScatterKind::Add;
        let nd = |args: &[Type]| ScatterNd { combine }.infer(args, &[]);
        assert!(nd(&[f(&[3, 2]), i(&[4, 1]), f(&[4, 2])]).is_ok());
        assert!(nd(&[f(&[3, 2]), i(&[4, 1]), f(&[4])]).is_err());
        assert!(nd(&[f(&[3]), i(&[4, 2]), f(&[4])]).is_err());
        let axis = 0;
        let elements = |args: &[Type]| ScatterElements { axis, combine }.infer(args, &[]);
        assert!(elements(&[f(&[3]), i(&[4]), f(&[5])]).is_err());
        let b = Type::of(DType::Bool, &[3]);
        assert!(
            elements(&[b.clone(), i(&[3]), b]).is_err(),
            "no sum of bools"
        );
    }
}
