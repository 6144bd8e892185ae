//! Ops whose results are as long as the data make them.
//!
//! The extent is an attribute: a symbol, which gets its value when the op runs, or a constant,
//! which the data must then meet. More than the symbol's bound is an error.

use std::cmp::Ordering;

use super::gather::scatter_slices;
use super::movement::{compare, may_reach, split, take};
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, Transpose, TypeError, arity,
    check_axis,
};
use crate::access::{Kernel, KernelFn, Tiling};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::{Tensor, indices};
use crate::types::{Class, DType, Shape, Type};

op_struct! {
    /// The indices of all elements of x that are not zero, in row-major order: i64 of shape
    /// [rank of x, extent], one column per element. NaN is not zero.
    NonZero {
        /// The number of such elements: a symbol, or a constant that the data must meet.
        extent: Dim,
    }
}

op_struct! {
    /// The slices of x along a dim at which a condition holds, in order: operands (x, cond: bool
    /// of rank 1). `cond` may be shorter than the dim; what is beyond is left out.
    Compress {
        /// The dim of x.
        axis: usize,
        /// The number of slices that are kept: a symbol, or a constant that the data must meet.
        extent: Dim,
    }
}

op_struct! {
    /// The distinct elements of x, or its distinct slices along a dim: results (values, first
    /// indices, inverse, counts), the last three i64. For every distinct value, the index of its
    /// first occurrence and how often it occurs; for every element (slice) of x, the number of its
    /// value. Without `axis`, x is taken as its elements in row-major order.
    ///
    /// NaNs are equal to each other, zeros of different sign are equal; the value is that of the
    /// first occurrence.
    Unique {
        /// The dim whose slices are compared; all elements if absent.
        axis: Option<usize>,
        /// Values in ascending order (slices lexicographically, NaN last), or else in order of
        /// their first occurrence.
        sorted: bool,
        /// The number of distinct values: a symbol, or a constant that the data must meet.
        extent: Dim,
    }
}

/// Checks the attribute that gives a result its extent.
pub(crate) fn check_extent(extent: &Dim) -> Result<(), TypeError> {
    match extent {
        Dim::Expr(poly) if poly.as_symbol().is_none() => {
            type_error!("the extent must be a symbol or a constant, found {extent}")
        }
        _ => Ok(()),
    }
}

/// Checks that a result may be as long as the data made it.
pub(crate) fn settle_extent(extent: &Dim, count: usize) -> Result<(), EvalError> {
    let fits = match extent.as_const() {
        Some(extent) => count as u64 == extent,
        None => count as u64 <= extent.max_extent(),
    };
    if fits {
        return Ok(());
    }
    let message = format!("the result has {count} entries, its extent is {extent}");
    Err(EvalError::value(message))
}

fn data_dependent(dims: Vec<crate::access::SplitDim>, operand: usize) -> Tiling {
    Tiling::Kernel(Kernel {
        function: KernelFn::Other,
        dims,
        index_operands: vec![operand],
    })
}

impl OpDef for NonZero {
    const NAMES: &'static [&'static str] = &["non_zero"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        check_extent(&self.extent)?;
        if x.dtype.class() == Class::Configurable {
            type_error!("elements of {} can not be compared with zero", x.dtype);
        }
        let shape = Shape::new([Dim::Const(x.rank() as u64), self.extent.clone()]);
        Ok(vec![Type::new(DType::I64, shape)])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let x = &args[0];
        let found = indices(x.shape()).zip(x.scalars());
        let found: Vec<Vec<u64>> = found
            .filter(|(_, value)| value.to_bool())
            .map(|(index, _)| index)
            .collect();
        settle_extent(&self.extent, found.len())?;
        let rows = (0..x.rank()).flat_map(|d| found.iter().map(move |index| index[d] as i64));
        let shape = [x.rank() as u64, found.len() as u64];
        Ok(vec![Tensor::from_vec(&shape, rows.collect())])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        data_dependent(vec![], 0)
    }

    fn samples() -> Vec<Sample> {
        let symbol = |max| Dim::symbol("count", max);
        let sample = |extent, dtype, shape: &[u64]| {
            Sample::new(NonZero { extent }, &[Type::of(dtype, shape)]).range(0, -1.0, 1.0)
        };
        vec![
            sample(symbol(24), DType::F32, &[2, 3, 4]),
            sample(symbol(12), DType::I64, &[12]),
            Sample::new(
                NonZero { extent: symbol(6) },
                &[Type::of(DType::Bool, &[3, 2])],
            ),
            sample(symbol(1), DType::I8, &[]),
            sample(Dim::Const(0), DType::Bf16, &[0, 3]),
        ]
    }
}

impl OpDef for Compress {
    const NAMES: &'static [&'static str] = &["compress"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x, cond] = arity(args)?;
        check_axis(self.axis, x)?;
        check_extent(&self.extent)?;
        if cond.dtype != DType::Bool || cond.rank() != 1 {
            type_error!("the condition is a bool of rank 1, found {cond}");
        }
        if !may_reach(&cond.shape[0], &x.shape[self.axis]) {
            type_error!(
                "the condition {cond} is longer than dim {} of {x}",
                self.axis
            );
        }
        let mut dims = x.dims().to_vec();
        dims[self.axis] = self.extent.clone();
        Ok(vec![Type::new(x.dtype, Shape::new(dims))])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, cond) = (&args[0], &args[1]);
        let kept: Vec<u64> = (0..)
            .zip(cond.scalars())
            .filter(|(_, c)| c.to_bool())
            .map(|(i, _)| i)
            .collect();
        settle_extent(&self.extent, kept.len())?;
        Ok(vec![take(x, self.axis, &kept, &[kept.len() as u64])])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let others = (0..args[0].rank()).filter(|d| *d != self.axis);
        let dims = others.map(|d| split(format!("d{d}"), &[Some(d), None], &[d]));
        data_dependent(dims.collect(), 1)
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let extent = self.extent.clone();
        let kept = cx.b.op(NonZero { extent }, &[cx.args[1]])?;
        let places = cx.b.op(Transpose { perm: vec![1, 0] }, &[kept])?;
        let grad = scatter_slices(cx.b, cx.args[0], self.axis, places, cx.cotangents[0])?;
        Ok(vec![Some(grad), None])
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, extent, dtype, shape: &[u64], cond: &[u8]| {
            let count = cond.len() as u64;
            let cond = Tensor::from_stored(DType::Bool, &[count], cond.to_vec());
            let types = [Type::of(dtype, shape), cond.ty()];
            Sample::new(Compress { axis, extent }, &types).given(1, cond)
        };
        let symbol = |max| Dim::symbol("count", max);
        vec![
            sample(0, Dim::Const(2), DType::F32, &[4, 3], &[0, 1, 1, 0]),
            sample(1, Dim::Const(2), DType::F32, &[2, 4, 2], &[1, 0, 1]),
            sample(0, Dim::Const(0), DType::F32, &[3], &[0, 0]),
            sample(1, symbol(3), DType::Bf16, &[2, 3, 2], &[1, 0, 1]),
            sample(0, symbol(4), DType::I64, &[4, 2], &[1, 1, 1, 1]),
            sample(0, symbol(2), DType::Bool, &[2, 2], &[]),
        ]
    }
}

impl OpDef for Unique {
    const NAMES: &'static [&'static str] = &["unique"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        check_extent(&self.extent)?;
        if x.dtype.class() == Class::Configurable {
            type_error!("elements of {} have no order", x.dtype);
        }
        let (mut dims, mut along) = (vec![self.extent.clone()], x.shape.elements());
        if let Some(axis) = self.axis {
            check_axis(axis, x)?;
            dims = x.dims().to_vec();
            along = Some(std::mem::replace(&mut dims[axis], self.extent.clone()));
        }
        let Some(along) = along else {
            type_error!("{x} has more elements than 64 bits count");
        };
        let list = |extent: &Dim| Type::new(DType::I64, Shape::new([extent.clone()]));
        Ok(vec![
            Type::new(x.dtype, Shape::new(dims)),
            list(&self.extent),
            list(&along),
            list(&self.extent),
        ])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, axis) = match self.axis {
            Some(axis) => (args[0].clone(), axis),
            None => (args[0].reshape(&[args[0].len() as u64]), 0),
        };
        let extent = x.shape()[axis];
        let slices: Vec<Vec<Scalar>> = (0..extent)
            .map(|i| take(&x, axis, &[i], &[1]).scalars().collect())
            .collect();
        let order = |a: usize, b: usize| -> Ordering {
            let pairs = slices[a].iter().zip(&slices[b]);
            pairs
                .map(|(a, b)| compare(*a, *b))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        let mut by_value: Vec<usize> = (0..slices.len()).collect();
        // Stable, so that the first of each group is the first occurrence.
        by_value.sort_by(|a, b| order(*a, *b));
        let mut groups: Vec<&[usize]> = by_value.chunk_by(|a, b| order(*a, *b).is_eq()).collect();
        if !self.sorted {
            groups.sort_by_key(|group| group[0]);
        }
        settle_extent(&self.extent, groups.len())?;
        let mut inverse = vec![0i64; slices.len()];
        for (number, group) in groups.iter().enumerate() {
            for slice in *group {
                inverse[*slice] = number as i64;
            }
        }
        let first: Vec<u64> = groups.iter().map(|group| group[0] as u64).collect();
        let list = |values: Vec<i64>| Tensor::from_vec(&[values.len() as u64], values);
        Ok(vec![
            take(&x, axis, &first, &[first.len() as u64]),
            list(first.iter().map(|i| *i as i64).collect()),
            list(inverse),
            list(groups.iter().map(|group| group.len() as i64).collect()),
        ])
    }

    fn tiling(&self, _args: &[Type]) -> Tiling {
        data_dependent(vec![], 0)
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, sorted, extent, dtype, shape: &[u64]| {
            let op = Unique {
                axis,
                sorted,
                extent,
            };
            Sample::new(op, &[Type::of(dtype, shape)]).range(0, 0.0, 2.0)
        };
        let symbol = |max| Dim::symbol("count", max);
        let values = Tensor::from_vec(&[6], vec![2.0, f32::NAN, 0.0, 2.0, f32::NAN, -0.0]);
        vec![
            sample(None, true, symbol(8), DType::I64, &[8]),
            sample(None, false, symbol(6), DType::U8, &[2, 3]),
            sample(Some(0), true, symbol(6), DType::I32, &[6, 2]),
            sample(Some(1), false, symbol(5), DType::I8, &[2, 5]),
            sample(None, true, Dim::Const(3), DType::F32, &[6]).given(0, values),
            sample(None, true, Dim::Const(1), DType::Bf16, &[]),
            sample(None, false, Dim::Const(0), DType::Bool, &[0, 2]).range(0, 0.0, 1.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{FunctionBuilder, eval::run_function};
    use crate::ops::Op;

    fn eval(op: impl Into<Op>, args: &[Tensor]) -> Result<Vec<Vec<i64>>, EvalError> {
        let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
        let results = op.into().eval(args, &mut EvalCx::new(&mut none))?;
        Ok(results.iter().map(Tensor::to_i64s).collect())
    }

    #[test]
    fn non_zero_lists_columns() {
        let x = Tensor::from_vec(&[2, 3], vec![0.0, 1.0, f32::NAN, -0.0, 0.0, -2.0]);
        let count = |extent| eval(NonZero { extent }, std::slice::from_ref(&x));
        let expected = vec![vec![0, 0, 1, 1, 2, 2]];
        assert_eq!(count(Dim::symbol("n", 6)), Ok(expected.clone()));
        assert_eq!(count(Dim::symbol("n", 3)), Ok(expected.clone()));
        assert_eq!(count(Dim::Const(3)), Ok(expected));
        assert!(count(Dim::symbol("n", 2)).is_err());
        assert!(count(Dim::Const(4)).is_err());
    }

    #[test]
    fn compress_keeps_what_the_condition_says() {
        let x = Tensor::from_vec(&[2, 3], vec![1i64, 2, 3, 4, 5, 6]);
        let cond = Tensor::from_stored(DType::Bool, &[2], vec![0u8, 1]);
        let (axis, extent) = (1, Dim::symbol("n", 3));
        assert_eq!(
            eval(Compress { axis, extent }, &[x, cond]),
            Ok(vec![vec![2, 5]])
        );
    }

    #[test]
    fn unique_values_in_both_orders() {
        let x = Tensor::from_vec(&[6], vec![2.0, f64::NAN, 0.0, 2.0, f64::NAN, -0.0]);
        let run = |sorted| {
            let (axis, extent) = (None, Dim::symbol("n", 6));
            let op = Unique {
                axis,
                sorted,
                extent,
            };
            eval(op, std::slice::from_ref(&x)).unwrap().split_off(1)
        };
        let lists =
            |a: [i64; 3], b: [i64; 6], c: [i64; 3]| vec![a.to_vec(), b.to_vec(), c.to_vec()];
        assert_eq!(run(true), lists([2, 0, 1], [1, 2, 0, 1, 2, 0], [2, 2, 2]));
        assert_eq!(run(false), lists([0, 1, 2], [0, 1, 2, 0, 1, 2], [2, 2, 2]));
        let rows = Tensor::from_vec(&[3, 2], vec![2i64, 1, 1, 9, 2, 1]);
        let op = Unique {
            axis: Some(0),
            sorted: true,
            extent: Dim::symbol("n", 3),
        };
        assert_eq!(
            eval(op, &[rows]).unwrap(),
            [vec![1, 9, 2, 1], vec![1, 0], vec![1, 0, 1], vec![1, 2]]
        );
    }

    #[test]
    fn an_extent_that_is_computed_from_others_is_refused() {
        let extent = Dim::symbol("n", 6).offset(1).unwrap();
        let op = NonZero { extent };
        assert!(op.infer(&[Type::of(DType::F32, &[3])], &[]).is_err());
    }

    #[test]
    fn the_gradient_of_a_symbolic_selection_goes_back_to_its_places() {
        let mut b = FunctionBuilder::new("f");
        let x = b.param(Type::of(DType::F32, &[2, 4]), None);
        let cond = b.param(Type::of(DType::Bool, &[4]), None);
        let (axis, extent) = (1, Dim::symbol("kept", 4));
        let op = Compress { axis, extent };
        let kept = b.op(op.clone(), &[x, cond]).unwrap();
        let mut cx = GradCx {
            b: &mut b,
            args: &[x, cond],
            results: &[kept],
            cotangents: &[kept],
        };
        let grad = op.grad(&mut cx).unwrap()[0].unwrap();
        let func = b.finish_unnamed(&[grad]);
        let x = Tensor::from_vec(&[2, 4], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let cond = Tensor::from_stored(DType::Bool, &[4], vec![1u8, 0, 0, 1]);
        let results = run_function(&func, &[x, cond]).unwrap();
        assert_eq!(results[0].to_i64s(), [1, 0, 0, 4, 5, 0, 0, 8]);
    }
}
