//! The greatest or least elements.

use super::movement::{compare, constants, may_reach, split, zeros_like};
use super::{
    EvalCx, EvalError, GradCx, Grads, NoGrad, OpDef, Sample, ScatterElements, ScatterKind,
    TypeError, arity, check_axis,
};
use crate::access::{Kernel, KernelFn, Tiling};
use crate::dim::Dim;
use crate::graph::RegionType;
use crate::op_struct;
use crate::scalar::Scalar;
use crate::tensor::Tensor;
use crate::types::{Class, DType, Shape, Type};

op_struct! {
    /// The `k` greatest or least elements along a dim, in order: results (values, indices), with
    /// extent `k` in place of that dim. The greatest come in descending order, the least in
    /// ascending order; of equals the one with the lower index comes first.
    ///
    /// NaN is greater than every number; all NaNs are equal, as are zeros of different sign.
    TopK {
        /// The dim.
        axis: usize,
        /// How many; at most the extent of the dim.
        k: Dim,
        /// The greatest, not the least.
        largest: bool,
    }
}

impl OpDef for TopK {
    const NAMES: &'static [&'static str] = &["top_k"];

    fn infer(&self, args: &[Type], _regions: &[RegionType]) -> Result<Vec<Type>, TypeError> {
        let [x] = arity(args)?;
        check_axis(self.axis, x)?;
        if x.dtype.class() == Class::Configurable {
            type_error!("elements of {} have no order", x.dtype);
        }
        if !may_reach(&self.k, &x.shape[self.axis]) {
            type_error!("dim {} of {x} has less than {} elements", self.axis, self.k);
        }
        let mut dims = x.dims().to_vec();
        dims[self.axis] = self.k.clone();
        let shape = Shape::new(dims);
        Ok(vec![
            Type::new(x.dtype, shape.clone()),
            Type::new(DType::I64, shape),
        ])
    }

    fn eval(&self, args: &[Tensor], _cx: &mut EvalCx<'_>) -> Result<Vec<Tensor>, EvalError> {
        let (x, k) = (&args[0], constants(std::slice::from_ref(&self.k))?[0]);
        let (before, rest) = x.shape().split_at(self.axis);
        let (extent, after) = (rest[0], &rest[1..]);
        let (outer, inner) = (
            before.iter().product::<u64>(),
            after.iter().product::<u64>(),
        );
        let mut shape = x.shape().to_vec();
        shape[self.axis] = k;
        let count = shape.iter().product::<u64>() as usize;
        let (mut positions, mut chosen) = (vec![None; count], vec![0i64; count]);
        for row in 0..outer {
            for column in 0..inner {
                let at = |index: u64| ((row * extent + index) * inner + column) as usize;
                let mut order: Vec<u64> = (0..extent).collect();
                // The sort is stable, which keeps equals in the order of their indices.
                order.sort_by(|a, b| {
                    let order = compare(x.get(at(*a)), x.get(at(*b)));
                    if self.largest { order.reverse() } else { order }
                });
                for (rank, index) in (0..k).zip(order) {
                    let to = ((row * k + rank) * inner + column) as usize;
                    positions[to] = Some(at(index));
                    chosen[to] = index as i64;
                }
            }
        }
        Ok(vec![
            x.select(&shape, positions, Scalar::zero(x.dtype())),
            Tensor::from_vec(&shape, chosen),
        ])
    }

    fn tiling(&self, args: &[Type]) -> Tiling {
        let others = (0..args[0].rank()).filter(|d| *d != self.axis);
        Tiling::Kernel(Kernel {
            function: KernelFn::TopK {
                axis: self.axis,
                largest: self.largest,
            },
            dims: others
                .map(|d| split(format!("d{d}"), &[Some(d)], &[d, d]))
                .collect(),
            index_operands: vec![],
        })
    }

    fn grad(&self, cx: &mut GradCx<'_>) -> Result<Grads, NoGrad> {
        let zeros = zeros_like(cx.b, cx.args[0]);
        let scatter = ScatterElements {
            axis: self.axis,
            combine: ScatterKind::Add,
        };
        let grad =
            cx.b.op(scatter, &[zeros, cx.results[1], cx.cotangents[0]])?;
        Ok(vec![Some(grad)])
    }

    fn samples() -> Vec<Sample> {
        let sample = |axis, k, largest, dtype, shape: &[u64]| {
            let k = Dim::Const(k);
            Sample::new(TopK { axis, k, largest }, &[Type::of(dtype, shape)])
        };
        let special = [1.0, f32::NAN, -0.0, 3.0, 0.0, f32::INFINITY, f32::NAN, 3.0];
        let special = Tensor::from_vec(&[2, 4], special.to_vec());
        vec![
            sample(0, 2, true, DType::F32, &[5]).distinct(0),
            sample(1, 3, false, DType::F32, &[2, 4, 3]).distinct(0),
            sample(1, 4, true, DType::F32, &[2, 4])
                .given(0, special.clone())
                .no_grad(),
            sample(1, 4, false, DType::F32, &[2, 4])
                .given(0, special)
                .no_grad(),
            sample(1, 2, true, DType::Bf16, &[3, 6]),
            sample(0, 6, true, DType::I64, &[6, 2]),
            sample(0, 3, false, DType::Bool, &[4, 2]),
            sample(1, 0, true, DType::U8, &[2, 3]),
            sample(0, 1, true, DType::F32, &[1, 0]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_and_nan_have_their_order() {
        let x = Tensor::from_vec(&[6], vec![2.0, f64::NAN, 5.0, 2.0, f64::NAN, -0.0]);
        let order = |largest| {
            let (axis, k) = (0, Dim::Const(6));
            let mut none = |_: usize, _: &[Tensor]| Err(EvalError::value("no regions"));
            let mut cx = EvalCx::new(&mut none);
            let results = TopK { axis, k, largest }
                .eval(std::slice::from_ref(&x), &mut cx)
                .unwrap();
            results[1].to_i64s()
        };
        assert_eq!(order(true), [1, 4, 2, 0, 3, 5]);
        assert_eq!(order(false), [5, 0, 3, 2, 1, 4]);
    }

    #[test]
    fn more_than_there_are_is_refused() {
        let n = Dim::symbol("n", 8);
        let infer = |extent: &Dim, k: Dim| {
            let (axis, largest) = (0, true);
            let x = Type::new(DType::F32, Shape::new([extent.clone()]));
            TopK { axis, k, largest }.infer(&[x], &[])
        };
        assert!(infer(&Dim::Const(4), Dim::Const(5)).is_err());
        assert!(infer(&n, Dim::Const(9)).is_err());
        assert!(infer(&n, n.offset(1).unwrap()).is_err());
        assert!(infer(&n, n.clone()).is_ok());
        assert!(infer(&n, Dim::Const(5)).is_ok(), "n is checked at run time");
    }
}
